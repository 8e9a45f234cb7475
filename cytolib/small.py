"""The learned encoder that ships with the package, so that everything runs with no download.

A small convolutional network, trained without labels on the training split of PBC (Acevedo et al. 2020, CC BY 4.0) and
on phantoms; ``pretrained/cytolib-small.md`` is its model card, ``training/pretrain_encoder.py`` made it.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from cytolib.text import shown

NAME = "cytolib-small"
ARCHITECTURE = "resnet10t"
IMAGE_SIZE = 96
DIM = 128  #: length of an embedding: principal components of what the network gives, rotated
BATCH = 32  #: cells a forward pass, at least: on two cores a quarter faster than 8
FILE = Path(__file__).parent / "pretrained" / f"{NAME}.safetensors"
SHA256 = "a305bd17028b72537908bb0926e77b32499b36f54449c19a9417ef9736da96e3"
#: As in training: see ``cytolib/views.py``.
TRANSFORM = MappingProxyType({"mean": "0.7", "std": "0.2", "interpolation": "bicubic", "framing": "cell"})


def check_request(name: str, weights: object, weights_sha256: str | None, options: dict[str, str]) -> None:
    """Refuse (ValueError) what would make another encoder of it."""
    if weights is not None or weights_sha256 is not None or options:
        raise ValueError(
            f"encoder {shown(name)}: {NAME} has its own weights and transform, and no option but image_size; for "
            f"others use timm:{ARCHITECTURE}"
        )
