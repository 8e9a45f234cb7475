"""Sampling of synthetic embeddings, in diffusers' pipeline form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.utils import BaseOutput
from tqdm.auto import tqdm

from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.preconditioning import SIGMA_DATA
from cytolib.diffusion.standardizer import EmbeddingStandardizer

CHUNK = 512  # cells of one network call, padded: a row's bytes may depend on the shape of the matrix it is in
SIGMA_MIN, SIGMA_MAX = 0.02, 40.0  # noise levels of sampling, for data of unit variance
Scheduler = EDMEulerScheduler | EDMDPMSolverMultistepScheduler
Labels = Sequence[int] | Sequence[str] | np.ndarray | torch.Tensor | int | str


@dataclass
class EmbeddingDiffusionOutput(BaseOutput):
    """Synthetic cells.

    Attributes:
        embeddings: (N, D) float32, in the space of the training embeddings.
        class_labels: (N,) class names. domain_labels: (N,) domain names, or None.
        seeds: (N,) int64, the seed each cell is a function of.
    """

    embeddings: np.ndarray
    class_labels: np.ndarray
    domain_labels: np.ndarray | None
    seeds: np.ndarray


class EmbeddingDiffusionPipeline(DiffusionPipeline):
    """Draws embeddings of given classes and domains from a trained denoiser.

    Args:
        denoiser: :class:`EmbeddingDenoiser`, EDM-preconditioned with sigma_data = 1.
        standardizer: :class:`EmbeddingStandardizer` fitted on the training embeddings.
        scheduler: ``EDMDPMSolverMultistepScheduler`` or ``EDMEulerScheduler`` with ``sigma_data=1``.
        id2label, id2domain: vocabulary, {"0": name, ...}, as configurations of transformers have it.
    """

    denoiser: EmbeddingDenoiser
    standardizer: EmbeddingStandardizer
    scheduler: Scheduler

    def __init__(
        self,
        denoiser: EmbeddingDenoiser,
        standardizer: EmbeddingStandardizer,
        scheduler: Scheduler,
        id2label: dict[str, str] | None = None,
        id2domain: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        check_scheduler(scheduler)
        self.register_modules(denoiser=denoiser, standardizer=standardizer, scheduler=scheduler)
        self.register_to_config(id2label=id2label or {}, id2domain=id2domain or {})

    @classmethod
    def from_parts(
        cls,
        denoiser: EmbeddingDenoiser,
        standardizer: EmbeddingStandardizer,
        class_names: Sequence[str],
        domain_names: Sequence[str] = (),
    ) -> EmbeddingDiffusionPipeline:
        """A pipeline with the default scheduler, DPM-Solver++(2M) on Karras' noise levels."""
        pipe = cls(
            denoiser, standardizer, default_scheduler(), id2label={str(i): name for i, name in enumerate(class_names)},
            id2domain={str(i): name for i, name in enumerate(domain_names)},
        )  # fmt: skip
        return pipe.to(denoiser.device)

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of the class indices."""
        return _names(self.config["id2label"])

    @property
    def domain_names(self) -> list[str]:
        """Domain names in the order of the domain indices; empty for a model without a domain condition."""
        return _names(self.config["id2domain"])

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Labels,
        domain_labels: Labels | None = None,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        seeds: Sequence[int] | np.ndarray | None = None,
        progress: bool = False,
    ) -> EmbeddingDiffusionOutput:
        """Draw one synthetic cell for each class label.

        Cell k is a function of its own seed, class and domain alone: the same bytes alone, in any batch and in any
        order, at one thread count.

        Args:
            class_labels: N class names or indices (or a single one).
            domain_labels: N domain names or indices, or a single one for all; None draws from the null domain.
            num_inference_steps: noise levels of the sampler.
            guidance_scale: w of classifier-free guidance, F_null + w (F_class - F_null) (Ho & Salimans 2022). On
                unbounded vectors w > 1 changes the variance of a class rather than its sharpness: keep 1 unless
                validation cells say otherwise.
            generator: draws the seeds where none are given. seeds: N whole numbers below 2^63.
            progress: show a progress bar.

        Raises:
            ValueError: for unknown names, or a scheduler that does not fit an EDM denoiser.
        """
        classes = label_indices(class_labels, self.class_names, "class_labels")
        domains = self.domain_indices(domain_labels, len(classes))
        seeds = check_seeds(seeds, len(classes), generator)
        parts = []
        with tqdm(total=len(classes), disable=not progress, unit="cell") as bar:
            for start in range(0, len(classes), CHUNK):
                part = slice(start, start + CHUNK)
                count = len(classes[part])
                padding = np.pad(np.arange(count), (0, CHUNK - count), mode="edge")
                chunk_domains = None if domains is None else domains[part][padding]
                steps = self.denoise(
                    classes[part][padding], chunk_domains, seeds[part][padding], num_inference_steps, guidance_scale
                )
                for _, sample, _ in steps:  # noqa: B007, the last one is the sample
                    pass
                parts.append(self.standardizer.inverse_transform(sample)[:count].float().cpu().numpy())
                bar.update(count)
        names = np.array(self.class_names)[classes]
        domain_column = None if domains is None or domain_labels is None else np.array(self.domain_names)[domains]
        return EmbeddingDiffusionOutput(np.concatenate(parts), names, domain_column, seeds)

    @torch.no_grad()
    def denoise(
        self,
        classes: np.ndarray,
        domains: np.ndarray | None,
        seeds: np.ndarray,
        num_inference_steps: int,
        guidance_scale: float = 1.0,
    ) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
        """The sampling loop, in the standardised space: yields (sigma, sample after the step, denoised estimate).

        ``classes``, ``domains`` and ``seeds`` are (B,) indices and seeds; tensors are (B, K).
        """
        check_scheduler(self.scheduler)
        if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps!r}, expected a whole number of at least 1")
        device = self.denoiser.device
        labels = torch.from_numpy(np.asarray(classes)).to(device)
        places = None if domains is None else torch.from_numpy(np.asarray(domains)).to(device)
        noise = noise_from_seeds(seeds, self.standardizer.output_dim)
        self.scheduler.set_timesteps(num_inference_steps)
        sample = torch.from_numpy(noise).to(device) * self.scheduler.init_noise_sigma
        for i, timestep in enumerate(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(sample, timestep)
            sigma = float(self.scheduler.sigmas[i])
            output = self.denoiser(scaled, timestep.to(device), labels, places)
            if guidance_scale != 1.0:
                unconditional = self.denoiser(scaled, timestep.to(device), None, places)
                output = unconditional + guidance_scale * (output - unconditional)
            estimate = self.scheduler.precondition_outputs(sample, output, self.scheduler.sigmas[i])
            sample = self.scheduler.step(output, timestep, sample, return_dict=False)[0]
            yield sigma, sample, estimate

    def domain_indices(self, domain_labels: Labels | None, count: int) -> np.ndarray | None:
        """(N,) indices for N or one domain label; None for the null domain or a model without domains."""
        if not self.domain_names:
            if domain_labels is not None:
                raise ValueError("domain_labels given, but this model was trained without domains; leave them out")
            return None
        if domain_labels is None:
            return None
        indices = label_indices(domain_labels, self.domain_names, "domain_labels")
        if len(indices) not in (1, count):
            raise ValueError(f"domain_labels has {len(indices)} entries, expected one or {count} (one for each cell)")
        return np.broadcast_to(indices, (count,)).copy()


def default_scheduler() -> EDMDPMSolverMultistepScheduler:
    """DPM-Solver++(2M) (Lu et al. 2022) on the noise levels of Karras et al."""
    return EDMDPMSolverMultistepScheduler(sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=SIGMA_DATA)


def check_scheduler(scheduler: object) -> None:
    """Refuse a scheduler whose preconditioning is not that of training."""
    config = getattr(scheduler, "config", {})
    fits = (
        isinstance(scheduler, Scheduler)
        and config["sigma_data"] == SIGMA_DATA
        and config["prediction_type"] == "epsilon"  # diffusers' word for a positive c_out
        and not config.get("thresholding", False)  # it would clip embeddings to [-1, 1]
    )
    if not fits:
        shown = {k: config[k] for k in ("sigma_data", "prediction_type", "thresholding", "clip_sample") if k in config}
        raise ValueError(
            f"scheduler is {type(scheduler).__name__} with {shown}, which does not fit a denoiser trained with EDM "
            f"preconditioning; use EDMDPMSolverMultistepScheduler or EDMEulerScheduler with sigma_data={SIGMA_DATA}, "
            "prediction_type='epsilon' and no thresholding"
        )


def label_indices(labels: object, names: Sequence[str], parameter: str, count: int | None = None) -> np.ndarray:
    """(N,) int64 indices of names (or checked indices), refusing what the vocabulary lacks."""
    values = np.atleast_1d(labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels))
    if values.ndim != 1 or (count is not None and len(values) != count):
        expected = "one dimension" if count is None else f"{count} entries, one for each cell"
        raise ValueError(f"{parameter} has shape {values.shape}, expected {expected}")
    if np.issubdtype(values.dtype, np.integer):
        bad = (values < 0) | (values >= len(names))
        indices = values.astype(np.int64)
    else:
        lookup = {name: i for i, name in enumerate(names)}
        indices = np.array([lookup.get(str(value), -1) for value in values], dtype=np.int64)
        bad = indices < 0
    if not len(values):
        raise ValueError(f"{parameter} is empty, expected at least one label")
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{parameter}, row {row} holds {values[row].item()!r}, expected one of {list(names)} or its index"
        )
    return indices


def _names(vocabulary: dict[str, str]) -> list[str]:
    return [vocabulary[str(i)] for i in range(len(vocabulary))]


def check_seeds(seeds: Sequence[int] | np.ndarray | None, count: int, generator: torch.Generator | None) -> np.ndarray:
    """(N,) int64 seeds: those given, or drawn from ``generator``."""
    if seeds is None:
        device = "cpu" if generator is None else generator.device
        return torch.randint(2**63 - 1, (count,), generator=generator, device=device).cpu().numpy()
    values = np.atleast_1d(np.asarray(seeds))
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer) or (count and int(values.min()) < 0):
        raise ValueError(
            f"seeds has shape {values.shape} and type {values.dtype}, expected {count} whole numbers >= 0, one a cell"
        )
    return values.astype(np.int64)
