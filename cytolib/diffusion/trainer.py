"""The state of a training run: model, optimiser, running mean of the weights; what a checkpoint holds."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from scipy.special import ndtri

from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.noise import noise_from_seeds
from cytolib.diffusion.preconditioning import denoising_loss
from cytolib.diffusion.standardizer import EmbeddingStandardizer
from cytolib.run import atomic_path

RECIPE = 1  # part of every checkpoint's key: raise it when the arithmetic of a step changes
WARM_UP = 100  # steps
VALIDATION_LEVELS = 8  # noise levels of the validation loss: quantiles of the training distribution


@dataclass(frozen=True)
class Cells:
    """Checked cells: (N, D) float32 embeddings, (N,) class indices, (N,) domain indices or None."""

    X: np.ndarray
    classes: np.ndarray
    domains: np.ndarray | None


class Trainer:
    """``advance`` is a function of this state and the step number alone; ``save`` and ``load`` move the state."""

    def __init__(self, cells: Cells, validation: Cells | None, arguments: dict[str, Any], device: torch.device) -> None:
        self.arguments, self.device, self.steps, self.step = arguments, device, int(arguments["steps"]), 0
        self.key = _content_key(cells, validation, arguments, device)
        self.standardizer = EmbeddingStandardizer.fit(
            cells.X, n_components=arguments["n_components"], whiten=arguments["whiten"]
        )
        self.cells = self._prepare(cells)
        self.validation = None if validation is None else self._prepare(validation)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(arguments["seed"])
            self.denoiser = EmbeddingDenoiser(
                embedding_dim=self.standardizer.output_dim, num_classes=len(arguments["class_names"]),
                num_domains=len(arguments["domain_names"]), width=arguments["width"], depth=arguments["depth"],
            ).to(device)  # fmt: skip
        self.ema = EMAModel(
            self.denoiser.parameters(), decay=arguments["ema_decay"], use_ema_warmup=True, power=3 / 4, foreach=True
        )
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(), lr=arguments["learning_rate"], betas=(0.9, 0.99),
            weight_decay=arguments["weight_decay"], fused=True,
        )  # fmt: skip
        self.loss = math.nan
        self.validation_loss: float | None = None

    def _prepare(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        Z = self.standardizer.transform(torch.from_numpy(cells.X)).to(self.device)
        domains = None if cells.domains is None else torch.from_numpy(cells.domains).to(self.device)
        return Z, torch.from_numpy(cells.classes).to(self.device), domains

    def learning_rate(self, step: int) -> float:
        """Of the step with this number, from 1: linear warm-up, then a half cosine to zero."""
        warm_up = min(1.0, step / min(WARM_UP, max(1, self.steps // 10)))
        return self.arguments["learning_rate"] * warm_up * 0.5 * (1 + math.cos(math.pi * (step - 1) / self.steps))

    def advance(self) -> None:
        """One optimiser step, on the batch, noise levels, noise and dropped labels of this step's number."""
        a, (Z, classes, domains) = self.arguments, self.cells
        rng = np.random.default_rng((a["seed"], self.step))
        rows = self._tensor(rng.integers(len(Z), size=a["batch_size"]))
        # EDM table 1: ln sigma ~ N(P_mean, P_std^2)
        sigma = self._tensor(
            np.exp(a["sigma_mean"] + a["sigma_std"] * rng.standard_normal(len(rows))).astype(np.float32)
        )
        noise = self._tensor(rng.standard_normal((len(rows), Z.shape[1]), dtype=np.float32))
        dropped = self._tensor(rng.random((2, len(rows))) < a["label_dropout"])
        class_labels = classes[rows].masked_fill(dropped[0], len(a["class_names"]))
        domain_labels = None if domains is None else domains[rows].masked_fill(dropped[1], len(a["domain_names"]))

        self.step += 1
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(self.step)
        self.denoiser.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type != "cpu"):
            loss = denoising_loss(self.denoiser, Z[rows], sigma, noise, class_labels, domain_labels).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimizer.step()
        self.ema.step(self.denoiser.parameters())
        self.loss = loss.item() if self.step == 1 else 0.98 * self.loss + 0.02 * loss.item()
        due = self.step % a["validate_every"] == 0 or self.step == self.steps
        self.validation_loss = self._validate() if due and self.validation is not None else None

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    @torch.no_grad()
    def _validate(self) -> float:
        """Loss of the EMA weights on all validation cells at fixed noise levels, with the same noise every time."""
        assert self.validation is not None
        Z, classes, domains = self.validation
        noise = self._tensor(noise_from_seeds(np.arange(len(Z)), Z.shape[1]))
        quantiles = ndtri((np.arange(VALIDATION_LEVELS) + 0.5) / VALIDATION_LEVELS)
        levels = np.exp(self.arguments["sigma_mean"] + self.arguments["sigma_std"] * quantiles)
        denoiser = self.ema_denoiser()
        losses = []
        for part in torch.arange(len(Z), device=self.device).split(4096):
            part_domains = None if domains is None else domains[part]
            for level in levels:
                sigma = torch.full((len(part),), float(level), device=self.device)
                losses.append(denoising_loss(denoiser, Z[part], sigma, noise[part], classes[part], part_domains).sum())
        return float(torch.stack(losses).double().sum()) / (len(Z) * VALIDATION_LEVELS)

    def ema_denoiser(self) -> EmbeddingDenoiser:
        """A copy of the network that holds the running mean of the weights."""
        denoiser = EmbeddingDenoiser.from_config(self.denoiser.config).to(self.device)
        self.ema.copy_to(denoiser.parameters())
        return denoiser.eval()

    def save(self, file: Path) -> None:
        """Write the checkpoint; it stands under its name only when complete."""
        state = {
            "key": self.key, "step": self.step, "loss": self.loss, "validation_loss": self.validation_loss,
            "denoiser": self.denoiser.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }  # fmt: skip
        with atomic_path(file) as temporary:
            torch.save(state, temporary)

    def load(self, file: Path) -> None:
        """Take the state of a checkpoint of these data and arguments."""
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file}: not a readable checkpoint ({reason}); delete it to train anew") from error
        if not isinstance(state, dict) or state.get("key") != self.key:
            raise ValueError(f"{file}: a checkpoint of other data or arguments; delete it to train anew")
        self.denoiser.load_state_dict(state["denoiser"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.ema.to(self.device)
        self.step, self.loss, self.validation_loss = state["step"], state["loss"], state["validation_loss"]


def _content_key(cells: Cells, validation: Cells | None, arguments: dict[str, Any], device: torch.device) -> str:
    """SHA-256 of everything that the weights are a function of."""
    described = {"recipe": RECIPE, "device": device.type, "torch": torch.__version__, **arguments}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for part in (cells, validation):
        for array in () if part is None else (part.X, part.classes, part.domains):
            digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode() + array.tobytes())
        digest.update(b"|")
    return digest.hexdigest()
