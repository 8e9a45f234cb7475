"""The diffusion model as an imbalanced-learn sampler."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar, get_args

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions

from cytolib.augment.base import EmbeddingOverSampler
from cytolib.diffusion import EmbeddingDiffusionPipeline, train
from cytolib.diffusion.batches import Batches
from cytolib.diffusion.preconditioning import Objective


class DiffusionOverSampler(EmbeddingOverSampler):
    """Over-sampling with a class-conditional diffusion model, trained on the cells it is given.

    It is fitted inside ``fit_resample``, so in an imbalanced-learn ``Pipeline`` under cross-validation the generator
    never sees a validation cell.

    Args:
        sampling_strategy: as in imbalanced-learn: 'auto' fills every class up to the largest, a dict names the wanted
            total of each class.
        random_state: seed of training and of the synthetic cells.
        steps, batch_size, learning_rate, width, depth: of :func:`cytolib.diffusion.train`.
        objective, batches, n_components, dropout, label_dropout: of the same function; ``batches='balanced'``
            trains on every class equally often, which makes the model repeat the few cells of a rare class more often.
        num_inference_steps, guidance_scale: of :class:`cytolib.diffusion.EmbeddingDiffusionPipeline`.
        device: None takes the best one.

    Attributes:
        pipeline_: the trained :class:`cytolib.diffusion.EmbeddingDiffusionPipeline` (if any cell was wanted).
        sampling_strategy_: dict, class to number of synthetic cells.
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "width": [Interval(numbers.Integral, 1, None, closed="left")],
        "depth": [Interval(numbers.Integral, 1, None, closed="left")],
        "objective": [StrOptions(set(get_args(Objective)))],
        "batches": [StrOptions(set(get_args(Batches)))],
        "n_components": [
            None,
            Interval(numbers.Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
        ],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "label_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "num_inference_steps": [Interval(numbers.Integral, 1, None, closed="left")],
        "guidance_scale": [Interval(numbers.Real, 0, None, closed="left")],
        "device": "no_validation",
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        steps: int = 2000,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        width: int = 256,
        depth: int = 3,
        objective: Objective = "edm",
        batches: Batches = "natural",
        n_components: int | float | None = 0.995,
        dropout: float = 0.0,
        label_dropout: float = 0.1,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        device: Any = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy, random_state=random_state)
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.width = width
        self.depth = depth
        self.objective = objective
        self.batches = batches
        self.n_components = n_components
        self.dropout = dropout
        self.label_dropout = label_dropout
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.device = device

    @property
    def pipeline_(self) -> EmbeddingDiffusionPipeline:
        """The trained pipeline."""
        return self.generator_

    def _fit_generator(self, X: np.ndarray, y: np.ndarray, random: np.random.RandomState) -> EmbeddingDiffusionPipeline:
        training = train(
            X, y, class_names=[str(name) for name in self.classes_], steps=int(self.steps),
            batch_size=int(self.batch_size), learning_rate=float(self.learning_rate), width=int(self.width),
            depth=int(self.depth), objective=self.objective, batches=self.batches, n_components=self.n_components,
            dropout=float(self.dropout), label_dropout=float(self.label_dropout),
            seed=int(random.randint(2**31 - 1)), device=self.device,
        )  # fmt: skip
        for step in training:  # noqa: B007, the last step holds the model
            pass
        return step.pipeline()

    def _draw(self, y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        return self.generator_(
            y, num_inference_steps=int(self.num_inference_steps), guidance_scale=float(self.guidance_scale),
            seeds=random.randint(2**31 - 1, size=len(y), dtype=np.int64),
        ).embeddings  # fmt: skip
