"""Training of an embedding diffusion model, as a generator that can stop anywhere and resume exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cytolib.diffusion.batches import BATCHES, Batches, Cells, unlabelled_rows
from cytolib.diffusion.labels import label_indices
from cytolib.diffusion.pipeline import EmbeddingDiffusionPipeline
from cytolib.diffusion.preconditioning import NOISE_DISTRIBUTION, OBJECTIVES, Objective
from cytolib.diffusion.standardizer import SPACES, Space, check_vectors
from cytolib.diffusion.trainer import Trainer
from cytolib.run import device as best_device

Labels = Sequence[str] | np.ndarray


@dataclass(frozen=True)
class TrainingStep:
    """State after an optimiser step.

    Attributes:
        step: steps done, from 1. loss: running mean of the loss of the objective.
        validation_loss: the same loss of the EMA weights, a mean over validation cells, on steps that validate; else
            None. It is measured at fixed noise levels with the same noise each time.
        learning_rate: of this step.
        validation_loss_by_class: the mean over the cells of each class that has validation cells, by class name.
        best_step: with early stopping, the step of the best validation so far; else None.
        stopped: whether early stopping ended the training with this step.
    """

    step: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    validation_loss_by_class: dict[str, float] | None
    best_step: int | None
    stopped: bool
    _trainer: Trainer = field(repr=False, compare=False)

    def pipeline(self) -> EmbeddingDiffusionPipeline:
        """A pipeline with a copy of the EMA weights of this step; ask for it before the next step is drawn.

        After the last step of a training with early stopping, these are the weights of ``best_step``.
        """
        trainer = self._trainer
        if trainer.progress.step != self.step:
            raise RuntimeError(
                f"the weights of step {self.step} are gone (training is at step {trainer.progress.step}); "
                "call pipeline() on the object last drawn from train()"
            )
        return EmbeddingDiffusionPipeline.from_parts(
            trainer.result(), trainer.standardizer, trainer.arguments["class_names"],
            trainer.arguments["domain_names"],
        )  # fmt: skip

    @property
    def resumed_from_step(self) -> int:
        """Steps that an earlier run had done, whose checkpoint this one took; 0 for a training without a break."""
        return self._trainer.resumed_from_step

    @property
    def history(self) -> pd.DataFrame:
        """``step``, ``loss``, ``validation_loss`` (NaN: none was taken) of all steps, also those before a resume."""
        progress = self._trainer.progress
        table = pd.DataFrame({"step": np.arange(1, self.step + 1), "loss": progress.losses[: self.step]})
        return table.assign(validation_loss=table["step"].map({step: mean for step, mean, _ in progress.validations}))

    @property
    def history_by_class(self) -> pd.DataFrame:
        """``step``, ``label``, ``loss`` of every validation up to this step."""
        rows = [
            (step, label, loss)
            for step, _, by_class in self._trainer.progress.validations
            for label, loss in by_class.items()
            if step <= self.step
        ]
        return pd.DataFrame(rows, columns=["step", "label", "loss"])


def train(
    X: np.ndarray,
    y: Labels,
    domains: Labels | None = None,
    *,
    class_names: Sequence[str],
    domain_names: Sequence[str] | None = None,
    steps: int = 3000,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    width: int = 256,
    depth: int = 3,
    dropout: float = 0.0,
    n_components: int | float | None = 0.995,
    space: Space = "pca",
    objective: Objective = "edm",
    batches: Batches = "natural",
    label_dropout: float = 0.1,
    sigma_mean: float | None = None,
    sigma_std: float | None = None,
    weight_decay: float = 0.01,
    ema_decay: float = 0.999,
    seed: int = 0,
    device: torch.device | str | None = None,
    X_val: np.ndarray | None = None,
    y_val: Labels | None = None,
    domains_val: Labels | None = None,
    validate_every: int = 500,
    patience: int | None = None,
    X_unlabelled: np.ndarray | None = None,
    domains_unlabelled: Labels | None = None,
    unlabelled_share: float = 0.5,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 200,
) -> Iterator[TrainingStep]:
    """Train on embeddings; draw from the generator to advance: ``for step in train(...): ...``.

    Batch, noise, and dropped labels and units of step t are functions of (seed, t) alone, so a run that was interrupted
    and resumed from its checkpoint equals an uninterrupted one: bit for bit on a CPU with the same number of threads. A
    checkpoint belongs to the content of data and arguments: change any, and training starts anew.

    Args:
        X: (N, D) embeddings of training cells. y: (N,) names out of ``class_names``.
        domains: (N,) names out of ``domain_names``, or None for a model without a domain condition.
        steps: optimiser steps. learning_rate: peak of a cosine to zero, after 100 warm-up steps.
        width, depth, dropout: of :class:`EmbeddingDenoiser`. n_components, space: of :meth:`EmbeddingStandardizer.fit`.
            The default was measured on 333 features of PBC cells: classifiers trained on its synthetic cells were
            better, and nearest distances closer to real ones, than with all components or with none rotated.
        objective: 'edm' or 'flow_matching' (:mod:`cytolib.diffusion.preconditioning`).
        batches: how often a class is seen: 'natural' (as often as it has cells), 'balanced' (all alike) or
            'square_root' (in between, as the root of its number of cells). The standardiser ignores it: its statistics
            should not rest on a few cells of rare classes.
        label_dropout: probability of the null class, and independently of the null domain, in training.
        sigma_mean, sigma_std: of ln sigma in training; None takes those of the objective.
        ema_decay: of the running mean of the weights, with diffusers' warm-up.
        device: None takes the best one; bfloat16 autocast away from the CPU.
        X_val, y_val, domains_val: validation cells, for ``validation_loss`` each ``validate_every`` steps.
        patience: early stopping: training ends after this many validations without a new best, and its result is the
            EMA weights of the best one. The criterion is the mean over classes of ``validation_loss_by_class``: rare
            classes are memorised first, and a mean over cells would follow the frequent ones, which still improve.
            The schedule of the learning rate is still that of ``steps``, which early stopping cuts: weights from
            before its end have seen less annealing.
        X_unlabelled: (M, D) cells without a class, which take the null class: they teach the shared part of the model
            what cells look like, in domains without labels too.
        domains_unlabelled: (M,) names out of ``domain_names``; None for the null domain.
        unlabelled_share: share of each batch that is unlabelled, rounded down to whole cells; ``batches`` rules the
            rest. The standardiser is fitted on both kinds, weighted by their share: the preconditioning wants unit
            variance of what the network sees, and labelled cells alone may not span the domains of the others.
        checkpoint_dir: folder of the checkpoint, replaced atomically each ``checkpoint_every`` steps and at the end.

    Yields:
        :class:`TrainingStep`; after a resume, the first one not yet done (the last one again, if all are).

    Raises:
        ValueError: for cells, names or arguments that do not fit, when called.
        RuntimeError: when the loss is not finite any more.
    """
    arguments: dict[str, Any] = {
        "class_names": list(map(str, class_names)), "domain_names": list(map(str, domain_names or [])), "steps": steps,
        "batch_size": batch_size, "learning_rate": learning_rate, "width": width, "depth": depth, "dropout": dropout,
        "n_components": n_components, "space": space, "objective": objective, "batches": batches,
        "label_dropout": label_dropout, "sigma_mean": sigma_mean, "sigma_std": sigma_std, "weight_decay": weight_decay,
        "ema_decay": ema_decay, "seed": seed, "validate_every": validate_every, "patience": patience,
        "unlabelled_share": unlabelled_share,
    }  # fmt: skip
    _check_arguments(arguments, checkpoint_every)
    mean, std = NOISE_DISTRIBUTION[objective]
    arguments["sigma_mean"] = mean if sigma_mean is None else sigma_mean
    arguments["sigma_std"] = std if sigma_std is None else sigma_std
    cells = _check_cells(X, y, domains, arguments, "")
    validation = None
    if X_val is not None or y_val is not None:
        if X_val is None or y_val is None:
            raise ValueError("X_val and y_val go together: give both or neither")
        validation = _check_cells(X_val, y_val, domains_val, arguments, "_val")
        if validation.X.shape[1] != cells.X.shape[1]:
            raise ValueError(f"X_val has {validation.X.shape[1]} dimensions, expected those of X, {cells.X.shape[1]}")
    if patience is not None and validation is None:
        raise ValueError(
            f"patience is {patience}, but there are no validation cells; give X_val and y_val, or no patience"
        )
    unlabelled = _check_unlabelled(X_unlabelled, domains_unlabelled, arguments, cells.X.shape[1])
    chosen = best_device() if device is None else torch.device(device)
    return _run(Trainer(cells, unlabelled, validation, arguments, chosen), checkpoint_dir, checkpoint_every)


def _run(trainer: Trainer, checkpoint_dir: str | Path | None, checkpoint_every: int) -> Iterator[TrainingStep]:
    file = None if checkpoint_dir is None else Path(checkpoint_dir) / f"{trainer.key[:20]}.pt"
    if file is not None and file.is_file():
        trainer.load(file)
        if trainer.finished:
            yield _report(trainer)
    while not trainer.finished:
        trainer.advance()
        if file is not None and (trainer.progress.step % checkpoint_every == 0 or trainer.finished):
            trainer.save(file)
        yield _report(trainer)


def _report(trainer: Trainer) -> TrainingStep:
    now = trainer.progress
    return TrainingStep(
        now.step, now.loss, now.validation_loss, trainer.learning_rate(now.step), now.validation_loss_by_class,
        now.best_step, now.stopped, trainer,
    )  # fmt: skip


def _check_arguments(arguments: dict[str, Any], checkpoint_every: int) -> None:
    """Refuse what no training can use, by the name of the argument."""
    counts = {name: arguments[name] for name in ("seed", "steps", "batch_size", "width", "depth", "validate_every")}
    counts["checkpoint_every"] = checkpoint_every
    if arguments["patience"] is not None:
        counts["patience"] = arguments["patience"]
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
    for name in ("class_names", "domain_names"):
        if twice := sorted({value for value in arguments[name] if arguments[name].count(value) > 1}):
            raise ValueError(f"{name} holds {twice} more than once, expected different names")
    for name, choices in (("objective", OBJECTIVES), ("batches", BATCHES), ("space", SPACES)):
        if arguments[name] not in choices:
            raise ValueError(f"{name} is {arguments[name]!r}, expected one of {list(choices)}")
    for name, low, high in (
        ("learning_rate", 0.0, np.inf), ("sigma_std", 0.0, np.inf), ("unlabelled_share", 0.0, 1.0),
    ):  # fmt: skip
        value = arguments[name]
        if value is not None and not low < value < high:
            raise ValueError(f"{name} is {value!r}, expected a number between {low:g} and {high:g}, both excluded")
    for name, high in (
        ("label_dropout", 1.0),
        ("dropout", 0.99),
        ("ema_decay", 1.0),
        ("weight_decay", np.inf),
    ):
        if not 0.0 <= arguments[name] <= high:
            raise ValueError(f"{name} is {arguments[name]!r}, expected a number from 0 to {high:g}")


def _check_cells(X: np.ndarray, y: Labels, domains: Labels | None, arguments: dict[str, Any], suffix: str) -> Cells:
    X = check_vectors(X, f"X{suffix}")
    classes = label_indices(y, arguments["class_names"], f"y{suffix}", len(X))
    if (domains is None) != (not arguments["domain_names"]):
        raise ValueError(f"domains{suffix} and domain_names go together: give both or neither")
    if domains is None:
        return Cells(X, classes, None)
    return Cells(X, classes, label_indices(domains, arguments["domain_names"], f"domains{suffix}", len(X)))


def _check_unlabelled(
    X: np.ndarray | None, domains: Labels | None, arguments: dict[str, Any], dimensions: int
) -> Cells | None:
    """Unlabelled cells with the null class, and the null domain where theirs is not known."""
    if X is None:
        if domains is not None:
            raise ValueError("domains_unlabelled given without X_unlabelled; give the cells too, or leave it out")
        return None
    X = check_vectors(X, "X_unlabelled")
    if X.shape[1] != dimensions:
        raise ValueError(f"X_unlabelled has {X.shape[1]} dimensions, expected those of X, {dimensions}")
    share, batch_size, names = arguments["unlabelled_share"], arguments["batch_size"], arguments["domain_names"]
    if not unlabelled_rows(batch_size, share):
        raise ValueError(f"unlabelled_share is {share}, less than one cell of a batch of {batch_size}; raise either")
    classes = np.full(len(X), len(arguments["class_names"]), dtype=np.int64)
    if domains is not None:
        if not names:
            raise ValueError("domains_unlabelled given, but no domain_names; give domains and domain_names too")
        return Cells(X, classes, label_indices(domains, names, "domains_unlabelled", len(X)))
    return Cells(X, classes, np.full(len(X), len(names), dtype=np.int64) if names else None)
