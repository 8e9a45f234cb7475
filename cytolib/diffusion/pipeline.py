"""Sampling of synthetic embeddings, in diffusers' pipeline form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput

from cytolib.diffusion.labels import Labels, check_seeds, label_indices
from cytolib.diffusion.sampling import sample_cells
from cytolib.diffusion.schedulers import Scheduler, check_scheduler, default_scheduler

if TYPE_CHECKING:
    from cytolib.diffusion.denoiser import EmbeddingDenoiser
    from cytolib.diffusion.standardizer import EmbeddingStandardizer


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
        denoiser: :class:`EmbeddingDenoiser`, of either objective.
        standardizer: :class:`EmbeddingStandardizer` fitted on the training embeddings.
        scheduler: any of diffusers' that fits vectors (:mod:`cytolib.diffusion.schedulers`), whatever the objective.
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
        order, on any number of threads.

        Args:
            class_labels: N class names or indices (or a single one).
            domain_labels: N domain names or indices, or a single one for all; None draws from the null domain.
            num_inference_steps: steps of the scheduler.
            guidance_scale: w of classifier-free guidance, F_null + w (F_class - F_null) (Ho & Salimans 2022). On
                unbounded vectors w > 1 changes the variance of a class rather than its sharpness: keep 1 unless
                validation cells say otherwise.
            generator: draws the seeds where none are given. seeds: N whole numbers below 2^63.
            progress: show a progress bar.

        Raises:
            ValueError: for unknown names, or a scheduler that does not fit.
        """
        classes = label_indices(class_labels, self.class_names, "class_labels")
        domains = self.domain_indices(domain_labels, len(classes))
        seeds = check_seeds(seeds, len(classes), generator)
        embeddings = sample_cells(self, classes, domains, seeds, num_inference_steps, guidance_scale, progress=progress)
        names = np.array(self.class_names)[classes]
        places = None if domains is None else np.array(self.domain_names)[domains]
        return EmbeddingDiffusionOutput(embeddings, names, places, seeds)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> EmbeddingDiffusionPipeline:
        """Open a folder that ``save_pretrained`` wrote, or a repository of the Hugging Face hub; runs no code of it.

        Args:
            pretrained_model_name_or_path: folder, or ``owner/name`` on the hub.
            options: of ``diffusers.DiffusionPipeline.from_pretrained``; of a folder with code, those of the hub only.

        Raises:
            FileNotFoundError, ValueError: in one sentence, for whatever ``cytolib.diffusion.opening`` refuses.
        """
        from cytolib.diffusion.code import carries_code, open_with_installed_code
        from cytolib.diffusion.opening import check_folder

        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            asked = [name for name in ("revision", "token", "cache_dir", "local_files_only") if name in options]
            folder = _fetch(str(pretrained_model_name_or_path), {name: options.pop(name) for name in asked})
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError(f"{folder}: no model_index.json; expected a folder that save_pretrained wrote")
        check_folder(folder, cls.__name__)
        if carries_code(folder):
            return open_with_installed_code(cls, folder)
        return super().from_pretrained(folder, use_safetensors=True, **options)

    def save_pretrained(self, save_directory: Any, *arguments: Any, with_code: bool = False, **options: Any) -> None:
        """Save in diffusers' layout; ``with_code`` adds what opens it where cytolib is not installed.

        Such a folder opens with ``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)``, and with our own
        class as before.
        """
        super().save_pretrained(save_directory, *arguments, **options)
        if with_code:
            from cytolib.diffusion.code import write_code

            write_code(Path(save_directory))

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


def _fetch(name: str, options: dict[str, Any]) -> Path:
    """A local copy of a model on the hub: configurations and weights, no code."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"], **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{name}: neither a folder nor to be had from the hub ({reason})") from error


def _names(vocabulary: dict[str, str]) -> list[str]:
    return [vocabulary[str(i)] for i in range(len(vocabulary))]
