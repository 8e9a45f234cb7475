"""Synthetic cells where SMOTE sat: imbalanced-learn samplers made of a diffusion model and of its honest baselines."""

from cytolib.augment.base import EmbeddingOverSampler
from cytolib.augment.class_gaussian import ClassGaussianOverSampler
from cytolib.augment.diffusion import DiffusionOverSampler
from cytolib.augment.gaussian_mixture import GaussianMixtureOverSampler
from cytolib.augment.generators import GENERATORS, fitted, synthetic_only
from cytolib.augment.kernel_density import KernelDensityOverSampler
from cytolib.augment.resampling import BootstrapOverSampler, FeatureMixupOverSampler

__all__ = [
    "GENERATORS",
    "BootstrapOverSampler",
    "ClassGaussianOverSampler",
    "DiffusionOverSampler",
    "EmbeddingOverSampler",
    "FeatureMixupOverSampler",
    "GaussianMixtureOverSampler",
    "KernelDensityOverSampler",
    "fitted",
    "synthetic_only",
]
