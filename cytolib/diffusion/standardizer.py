"""From embedding space to the space the diffusion model works in, and back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch.nn.functional import pad

Space = Literal["pca", "standardise", "none"]
SPACES: tuple[Space, ...] = ("pca", "standardise", "none")
#: Components below this share of the largest variance are rounding error of float32 features: they are kept at zero.
SMALLEST_VARIANCE = 1e-7


class EmbeddingStandardizer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Affine, invertible map of embeddings to the space of the model, by default one of mean zero and unit variance.

    Whitening ('pca') matters: the preconditioning assumes unit variance in every direction, and a linear probe reads
    the directions of small variance too, which a model of merely standardised dimensions learns last.

    Args:
        embedding_dim: D, dimensions of an embedding.
        space: 'pca' (K principal components of the standardised dimensions, each scaled to unit variance),
            'standardise' (each dimension to mean zero and unit variance, K = D) or 'none' (the identity, K = D, for
            embeddings that are standardised already).
        components: K of 'pca', at least 1; 0 for the other two.
    """

    @register_to_config
    def __init__(self, *, embedding_dim: int, space: Space = "standardise", components: int = 0) -> None:
        super().__init__()
        if space not in SPACES:
            raise ValueError(f"space is {space!r}, expected one of {list(SPACES)}")
        if (components > 0) != (space == "pca"):
            raise ValueError(f"components is {components} in space {space!r}, expected 1 or more in 'pca', else 0")
        # parameters, not buffers: ModelMixin finds its dtype and device through them
        self.mean = _constant(torch.zeros(embedding_dim))
        self.scale = _constant(torch.ones(embedding_dim))
        if components:
            self.rotation = _constant(torch.zeros(embedding_dim, components))
            self.component_scale = _constant(torch.ones(components))

    @property
    def output_dim(self) -> int:
        """K, dimensions of a transformed vector."""
        return self.config["components"] or self.config["embedding_dim"]

    @classmethod
    def fit(
        cls,
        X: np.ndarray,
        *,
        n_components: int | float | None = None,
        space: Space = "pca",
        weights: np.ndarray | None = None,
    ) -> EmbeddingStandardizer:
        """Statistics of training embeddings, in float64.

        Args:
            X: (N, D) training embeddings. A constant dimension is returned as its constant.
            n_components: how many principal components to keep, or the share of the variance they must hold (a float
                below 1); None keeps all that are more than rounding error. Has no meaning outside space 'pca'.
            space: 'pca', 'standardise' or 'none', as above.
            weights: (N,) weights of the cells in all statistics; None weighs all alike.

        Raises:
            ValueError: for an unknown space, a number of components that the data do not have, cells that are not
                finite, or weights that are no weights.
        """
        X = check_vectors(X, "X").astype(np.float64)
        _check_weights(weights, len(X))
        if space not in ("pca", "standardise"):  # 'none', or a word that the constructor refuses
            return cls(embedding_dim=X.shape[1], space=space)
        mean = np.average(X, axis=0, weights=weights)
        Z = X - mean
        scale = np.sqrt(np.average(Z * Z, axis=0, weights=weights))
        # the spread of a constant float32 column is rounding error, not zero
        scale[scale <= 1e-6 * np.maximum(np.abs(mean), 1e-30)] = 1.0
        if space == "standardise":
            return cls._filled(mean, scale)
        Z /= scale
        covariance = Z.T @ Z / len(Z) if weights is None else (Z.T * (weights / weights.sum())) @ Z
        variance, rotation = np.linalg.eigh(covariance)
        variance, rotation = variance[::-1], rotation[:, ::-1]
        kept = _components_to_keep(variance, n_components)
        # eigenvectors are known up to a sign: fix it, so that equal data give equal models
        signs = np.sign(rotation[np.abs(rotation).argmax(axis=0), np.arange(rotation.shape[1])])
        spread = np.sqrt(variance[:kept].clip(0))
        spread[spread == 0] = 1.0  # of cells that are all equal
        return cls._filled(mean, scale, (rotation * signs)[:, :kept], spread)

    @classmethod
    def _filled(cls, mean: np.ndarray, scale: np.ndarray, *components: np.ndarray) -> EmbeddingStandardizer:
        space: Space = "pca" if components else "standardise"
        kept = components[0].shape[1] if components else 0
        standardizer = cls(embedding_dim=len(mean), space=space, components=kept)
        names = ["mean", "scale", "rotation", "component_scale"]
        for name, values in zip(names, (mean, scale, *components), strict=False):
            getattr(standardizer, name).copy_(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))
        return standardizer

    @torch.no_grad()
    def transform(self, X: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, D) to vectors (N, K) of the model's space, float32."""
        Z = (X.to(self.mean.dtype) - self.mean) / self.scale
        return Z @ self.rotation / self.component_scale if self.config["components"] else Z

    @torch.no_grad()
    def inverse_transform(self, Z: torch.Tensor) -> torch.Tensor:
        """Vectors (N, K) of the model's space to embeddings (N, D), float32."""
        if self.config["components"]:
            # matrix kernels for a few odd columns round a row by its place among the others: pad to whole blocks
            rows, columns = self.rotation.shape
            rotation = pad(self.rotation, (0, -columns % 16, 0, -rows % 16))
            Z = (pad(Z * self.component_scale, (0, -columns % 16)) @ rotation.T)[:, :rows]
        return Z * self.scale + self.mean


def _constant(values: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)


def _components_to_keep(variance: np.ndarray, n_components: int | float | None) -> int:
    """Number of leading components for an explicit number, a share of the variance, or all above rounding error."""
    useful = max(1, int((variance > SMALLEST_VARIANCE * max(variance[0], 1e-30)).sum()))
    if n_components is None:
        return useful
    if isinstance(n_components, float) and 0 < n_components < 1:
        share = np.cumsum(variance.clip(0)) / max(variance.clip(0).sum(), 1e-30)
        return min(useful, int(np.searchsorted(share, n_components)) + 1)
    if isinstance(n_components, int) and 1 <= n_components <= len(variance):
        return min(useful, n_components)
    raise ValueError(
        f"n_components is {n_components!r}, expected None, a whole number from 1 to {len(variance)}, "
        "or a share of the variance between 0 and 1"
    )


def _check_weights(weights: np.ndarray | None, count: int) -> None:
    """Refuse weights that are not one finite number >= 0 for each cell, with a sum above 0."""
    if weights is None:
        return
    if np.shape(weights) != (count,) or not np.isfinite(weights).all() or np.min(weights) < 0 or not np.sum(weights):
        raise ValueError(
            f"weights has shape {np.shape(weights)}, expected {count} finite numbers >= 0, one a cell, not all zero"
        )


def check_vectors(X: np.ndarray, name: str) -> np.ndarray:
    """A finite float32 matrix of at least two rows, or one sentence that says what is wrong with it."""
    X = np.asarray(X)
    if X.ndim != 2 or len(X) < 2 or X.shape[1] < 1:
        raise ValueError(f"{name} has shape {X.shape}, expected (cells, dimensions) with at least two cells")
    X = X.astype(np.float32)
    if not np.isfinite(X).all():
        row = int(np.argmax(~np.isfinite(X).all(axis=1)))
        raise ValueError(f"{name}, row {row} holds NaN or infinity, expected finite numbers; drop that cell")
    return X
