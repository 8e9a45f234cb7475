"""Encoders: ``get_encoder(name)`` gives a model and the transform that belongs to it.

Names
    ``morphometry``                            classical features, no weights (``cytolib.morphometry``)
    ``timm:<architecture>[?option=value&...]`` any timm model, weights from a file or the hub
    ``dinobloom-s``, ``-b``, ``-l``, ``-g``    DinoBloom (Koch et al., MICCAI 2024), weights from its checkpoint file

Options stand in the name, so that one string in a notebook or a result table says all:
``weights`` (file, relative to the project root), ``image_size``, ``mean``, ``std`` (one number or three with commas),
``interpolation``; every other option goes to ``timm.create_model``. Keyword arguments win over the name. Example:
``timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5&weights=weights/mobilenetv2.safetensors``.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib import morphometry, run

Transform = Callable[[Image.Image], Any]

DINOBLOOM: dict[str, str] = {
    "dinobloom-s": "vit_small_patch14_dinov2",
    "dinobloom-b": "vit_base_patch14_dinov2",
    "dinobloom-l": "vit_large_patch14_dinov2",
    "dinobloom-g": "vit_giant_patch14_dinov2",
}
DINOBLOOM_SIZE = 224  # its position table; the mirrors' 518 px resamples it silently
_OWN_OPTIONS = ("weights", "image_size", "mean", "std", "interpolation")
_LIBRARIES = {"morphometry": ("numpy", "scipy", "scikit-image", "pillow"), "timm": ("timm", "torch", "pillow")}


@dataclass(frozen=True)
class Encoder:
    """A model of single cells: ``encoder(batch) -> (B, dim) float32``, always in evaluation mode.

    Attributes:
        name: the full name, with its options but without the weights' path.
        dim: length of an embedding.
        image_size: pixels a side of what the transform gives and the model takes.
        metadata: what an embedding table records: encoder, weights_sha256, transform, image_size, dtype, versions.
        forward: the batch function.
    """

    name: str
    dim: int
    image_size: int
    metadata: dict[str, str]
    forward: Callable[[Any], NDArray[np.float32]] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides an embedding's value besides the image: equal means same numbers."""
        return hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        """Embeddings (B, dim) of a batch of transformed cells."""
        return self.forward(batch)


def get_encoder(
    name: str, *, weights: str | Path | None = None, image_size: int | None = None, pretrained: bool = True
) -> tuple[Encoder, Transform]:
    """The encoder called ``name`` and its transform (PIL image, RGB -> what the encoder takes, for one cell).

    Args:
        name: see the module's docstring.
        weights: safetensors file, or torch file of plain tensors (read with ``weights_only=True``).
        image_size: pixels a side, for model and transform alike; default: the model's own.
        pretrained: without ``weights``: fetch timm's weights from the hub; False gives seeded random ones.

    Raises:
        ValueError: for an unknown name, keys or shapes that do not fit, or weights that cannot be fetched.
        FileNotFoundError: if the weights file is missing.
    """
    base, _, query = name.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    weights = weights if weights is not None else options.pop("weights", None)
    options.pop("weights", None)
    if image_size is None and "image_size" in options:
        image_size = _integer(options["image_size"], name)
    options.pop("image_size", None)
    if base == "morphometry":
        if weights is not None or options:
            raise ValueError(f"encoder {name!r}: morphometry has no weights, no option but image_size; drop them")
        return _morphometry(image_size or morphometry.IMAGE_SIZE)
    if base in DINOBLOOM:
        if weights is None:
            raise ValueError(f"encoder {name!r}: give weights=, its checkpoint file (zenodo.org/records/10908163)")
        options.setdefault("interpolation", "lanczos")
        return _timm(base, DINOBLOOM[base], options, Path(weights), image_size or DINOBLOOM_SIZE, pretrained)
    if base.startswith("timm:") and base != "timm:":
        return _timm(base, base.removeprefix("timm:"), options, weights, image_size, pretrained)
    known = ", ".join(["morphometry", *DINOBLOOM, "timm:<architecture>"])
    raise ValueError(f"encoder {name!r} is unknown; expected one of {known}")


def _integer(text: str, name: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"encoder {name!r}: image_size is {text!r}; expected a positive number of pixels")
    return int(text)


def _versions(kind: str) -> str:
    return " ".join(f"{library}={version(library)}" for library in _LIBRARIES[kind])


def _morphometry(size: int) -> tuple[Encoder, Transform]:
    if size < 32:
        raise ValueError(f"encoder 'morphometry': image_size is {size}; expected at least 32 pixels a side")
    folder = Path(morphometry.__file__).parent
    source = hashlib.sha256(b"".join(run.sha256(file).encode() for file in sorted(folder.glob("*.py")))).hexdigest()
    metadata = {
        "encoder": "morphometry",
        "weights_sha256": "none",
        "transform": f"RGB uint8, resized to {size} x {size} (Lanczos, no crop)",
        "image_size": str(size),
        "dtype": "float32",
        "source_sha256": source,
        "versions": _versions("morphometry"),
    }

    def forward(batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([morphometry.extract(image, size) for image in batch])

    def transform(image: Image.Image) -> NDArray[np.uint8]:
        return morphometry.resize(image, size)

    return Encoder("morphometry", len(morphometry.FEATURE_NAMES), size, metadata, forward), transform


def _timm(
    name: str,
    architecture: str,
    options: dict[str, str],
    weights: str | Path | None,
    image_size: int | None,
    pretrained: bool,
) -> tuple[Encoder, Transform]:
    from cytolib import timm_models  # torch and timm: seconds to import, and only needed here

    own = {key: options[key] for key in _OWN_OPTIONS if key in options}
    given = {key: _literal(value) for key, value in options.items() if key not in _OWN_OPTIONS}
    built = timm_models.build(name, architecture, given, _path(weights), image_size, pretrained)
    transform, described = timm_models.make_transform(name, built, own)
    spelt = "&".join(f"{key}={value}" for key, value in sorted((own | options).items()))
    full = f"{name}?{spelt}" if spelt else name
    metadata = {
        "encoder": full,
        "weights_sha256": built.weights_sha256,
        "transform": described,
        "image_size": str(built.image_size),
        "dtype": "float32",
        "versions": _versions("timm"),
    }
    return Encoder(full, built.dim, built.image_size, metadata, timm_models.forward(built.model)), transform


def _path(weights: str | Path | None) -> Path | None:
    """The weights file; a relative path counts from the working directory, else from the project root."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if not path.exists() and not path.is_absolute():
        path = run.root() / path
    if not path.is_file():
        raise FileNotFoundError(f"weights file {weights} is missing (looked for {path}); check the path or download it")
    return path


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
