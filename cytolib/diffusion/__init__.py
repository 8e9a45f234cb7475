"""Diffusion models of cell embeddings: training, sampling, and looking inside."""

from cytolib.diffusion.card import write_model_card
from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.inspect import (
    DenoisingTrajectory,
    denoising_error,
    denoising_trajectory,
    sampling_sigmas,
    training_sigmas,
)
from cytolib.diffusion.pipeline import EmbeddingDiffusionOutput, EmbeddingDiffusionPipeline
from cytolib.diffusion.schedulers import SAMPLERS, make_scheduler
from cytolib.diffusion.standardizer import EmbeddingStandardizer
from cytolib.diffusion.training import TrainingStep, train

__all__ = [
    "SAMPLERS",
    "DenoisingTrajectory",
    "EmbeddingDenoiser",
    "EmbeddingDiffusionOutput",
    "EmbeddingDiffusionPipeline",
    "EmbeddingStandardizer",
    "TrainingStep",
    "denoising_error",
    "denoising_trajectory",
    "make_scheduler",
    "sampling_sigmas",
    "train",
    "training_sigmas",
    "write_model_card",
]
