"""Encoders: ``get_encoder(name)`` gives a model and the transform that belongs to it.

Names
    ``cytolib-small``                          learned without labels, ships with the package (``cytolib.small``)
    ``morphometry``                            classical features, no weights (``cytolib.morphometry``)
    ``timm:<architecture>[?option=value&...]`` any timm model, weights from a file or the hub
    ``dinobloom-s``, ``-b``, ``-l``, ``-g``    DinoBloom at 224 px (Koch et al., MICCAI 2024; see ``cytolib.dinobloom``)
    ``dinov2-s``, ``-b``, ``-l``, ``-g``       DINOv2 at 224 px (Oquab et al., TMLR 2024), position table resampled

Encoders stand side by side with a plus sign: ``cytolib-small+morphometry`` is the vector of both for each cell.
Options stand in the name, so that one string in a notebook or a result table says all:
``weights`` (a file, relative to the project root; a URL; ``hf-hub:owner/repository``; default: where the authors
published them), ``weights_sha256`` (what the file must have), ``image_size``, ``mean``, ``std`` (one number or three
with commas), ``interpolation``, ``framing`` (``whole`` image, or ``cell``: its window, see ``cytolib.framing``); every
other option goes to ``timm.create_model``. Keyword arguments win over the name.
Example: ``timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5&weights=weights/mobilenetv2.safetensors``.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytolib import dinobloom, joined, morphometry, run, small
from cytolib import weights as weight_files
from cytolib.text import shown

if TYPE_CHECKING:
    from cytolib.inference import Forward

Transform = Callable[[Image.Image], Any]

DINOV2: dict[str, str] = {
    "dinov2-s": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-b": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-l": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-g": "vit_giant_patch14_dinov2.lvd142m",
}
DINOV2_SIZE = 224  # as DinoBloom, to be compared with it; trained at 518 px, so its position table is resampled
MAX_IMAGE_SIZE = 2048  # pixels a side; a cell has a tenth of it
#: What timm's factory takes beside a model's own options: other weights, other paths, other code.
_RESERVED = frozenset(
    {
        *("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("pretrained_strict", "pretrained_model_args", "features_only", "scriptable", "exportable", "no_jit"),
        *("num_classes", "img_size", "device", "dtype"),
    }
)
_OWN_OPTIONS = ("weights", "image_size", "mean", "std", "interpolation", "framing")
_LIBRARIES = {"morphometry": ("numpy", "scipy", "scikit-image", "pillow"), "timm": ("timm", "torch", "pillow")}


@dataclass(frozen=True)
class Encoder:
    """A model of single cells: ``encoder(batch) -> (B, dim) float32``, always in evaluation mode.

    Attributes:
        name: the full name, with its options but without the weights' path.
        dim: length of an embedding.
        image_size: pixels a side of what the transform gives and the model takes.
        metadata: what an embedding table records: encoder, weights_sha256, transform, image_size, dtype, versions.
        forward: the batch function; an ``inference.Forward`` for torch models.
        batch_size: cells at a time.
    """

    name: str
    dim: int
    image_size: int
    metadata: dict[str, str]
    forward: Callable[[Any], NDArray[np.float32]] = field(repr=False)
    batch_size: int = 32

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides an embedding's value besides the image: equal means same numbers."""
        return hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode()).hexdigest()

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        """Embeddings (B, dim) of a batch of transformed cells."""
        return self.forward(batch)


def get_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    precision: str = "auto",
    batch_size: int | None = None,
) -> tuple[Encoder, Transform]:
    """The encoder called ``name`` and its transform (PIL image, RGB -> what the encoder takes, for one cell).

    Args:
        name: see the module's docstring.
        weights: safetensors file, or torch file of plain tensors (read with ``weights_only=True``), as a path, a URL
            or ``hf-hub:owner/repository``; what is fetched stays in the cache.
        image_size: pixels a side, for model and transform alike; default: the model's own.
        pretrained: without ``weights``: fetch the published ones; False gives seeded random ones.
        precision: ``float32``, ``bfloat16`` (autocast) or ``auto``: bfloat16 on CUDA, float32 elsewhere.
        batch_size: cells a forward pass; default 8 on a CPU (``cytolib-small`` 32), 256 on an accelerator. No value
            depends on it by more than rounding.

    Raises:
        ValueError: for an unknown name, keys or shapes that do not fit, or weights that cannot be fetched.
        FileNotFoundError: if the weights file is missing.
    """
    parts = joined.parts_of(name)
    if len(parts) > 1:
        if weights is not None or image_size is not None:
            raise ValueError(
                f"encoder {shown(name)}: weights and image_size belong to one encoder; put them in its name"
            )
        return _side_by_side(
            [get_encoder(part, pretrained=pretrained, precision=precision, batch_size=batch_size) for part in parts]
        )
    encoder, transform = _named(name, weights, image_size, pretrained)
    return _running(encoder, precision, batch_size), transform


def _side_by_side(parts: list[tuple[Encoder, Transform]]) -> tuple[Encoder, Transform]:
    both, encoders = joined.SideBySide(parts), [encoder for encoder, _ in parts]
    described = joined.join_metadata([encoder.metadata | {"dimensions": str(encoder.dim)} for encoder in encoders])
    dim, size = sum(encoder.dim for encoder in encoders), max(encoder.image_size for encoder in encoders)
    whole = Encoder(described["encoder"], dim, size, described, both.forward, encoders[0].batch_size)
    return whole, both.transform


def _running(encoder: Encoder, precision: str, batch_size: int | None) -> Encoder:
    """``encoder`` at a precision, which its metadata record, and a batch size, which they do not."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1 cell, or None for the default")
    if encoder.name == "morphometry":
        if precision not in ("auto", "float32"):
            raise ValueError(f"precision is {precision!r}; expected auto or float32: morphometry has no other")
        return replace(encoder, batch_size=batch_size or encoder.batch_size)
    from cytolib.inference import resolve_precision

    dtype, size = resolve_precision(precision), batch_size or encoder.batch_size
    forward = replace(cast("Forward", encoder.forward), precision=dtype, batch_size=size)
    return replace(encoder, metadata=encoder.metadata | {"dtype": dtype}, forward=forward, batch_size=size)


def _named(
    name: str, weights: str | Path | None, image_size: int | None, pretrained: bool
) -> tuple[Encoder, Transform]:
    base, _, query = name.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    in_name, weights_sha256 = options.pop("weights", None), options.pop("weights_sha256", None)
    given = weights if weights is not None else in_name
    size_in_name = options.pop("image_size", None)
    if image_size is None and size_in_name is not None:
        image_size = _integer(size_in_name, name)
    if image_size is not None and not 0 < image_size <= MAX_IMAGE_SIZE:
        raise ValueError(f"encoder {shown(name)}: image_size is {image_size}; expected 1 to {MAX_IMAGE_SIZE} pixels")
    if base == "morphometry":
        if given is not None or weights_sha256 is not None or options:
            raise ValueError(f"encoder {name!r}: morphometry has no weights, no option but image_size; drop them")
        return _morphometry(image_size or morphometry.IMAGE_SIZE)
    if base == small.NAME:
        small.check_request(name, given, weights_sha256, options)
        located = weight_files.locate(small.FILE, small.SHA256) if pretrained else None
        size = image_size or small.IMAGE_SIZE
        encoder, transform = _timm(
            base, small.ARCHITECTURE, dict(small.TRANSFORM), located, size, False, head={"num_classes": small.DIM}
        )
        named = encoder.metadata | {"encoder": base}
        return replace(encoder, name=base, metadata=named, batch_size=max(small.BATCH, encoder.batch_size)), transform
    if base in dinobloom.ARCHITECTURES:
        dinobloom.check_request(base, options, image_size)
        options.setdefault("interpolation", "lanczos")  # as its authors resize
        if given is None and pretrained:
            given = dinobloom.url(base)
        config = weight_files.hub_config(str(given))
        if config is not None:
            dinobloom.check_hub_config(base, str(given), config)
        located = _located(name, given, weights_sha256)
        return _timm(base, dinobloom.ARCHITECTURES[base], options, located, dinobloom.IMAGE_SIZE, pretrained)
    if base in DINOV2:
        located = _located(name, given, weights_sha256)
        return _timm(base, DINOV2[base], options, located, image_size or DINOV2_SIZE, pretrained, resample=True)
    if base.startswith("timm:") and base != "timm:":
        architecture = base.removeprefix("timm:")
        if architecture.startswith(weight_files.HUB) and "dinobloom" in architecture.lower():
            raise ValueError(
                f"encoder {name!r}: a hub copy of DinoBloom asks for 518 px and would be resampled; "
                f"use dinobloom-s, -b, -l or -g with weights={architecture}"
            )
        return _timm(base, architecture, options, _located(name, given, weights_sha256), image_size, pretrained)
    known = ", ".join([small.NAME, "morphometry", *dinobloom.ARCHITECTURES, *DINOV2, "timm:<architecture>"])
    raise ValueError(f"encoder {shown(name)} is unknown; expected one of {known}")


def _integer(text: str, name: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError(f"encoder {shown(name)}: image_size is {shown(text)}; expected a positive number of pixels")
    return int(text)


def _versions(*kinds: str) -> str:
    libraries = dict.fromkeys(library for kind in kinds for library in _LIBRARIES[kind])
    return " ".join(f"{library}={version(library)}" for library in libraries)


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

    transform = partial(morphometry.resize, size=size)  # top-level, so that it can be pickled
    return Encoder("morphometry", len(morphometry.FEATURE_NAMES), size, metadata, forward), transform


def _timm(
    name: str,
    architecture: str,
    options: dict[str, str],
    located: tuple[Path, str] | None,
    image_size: int | None,
    pretrained: bool,
    resample: bool = False,
    head: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Encoder, Transform]:
    taken = sorted(_RESERVED & options.keys())
    if taken:
        raise ValueError(
            f"encoder {shown(name)}: the option {taken[0]!r} is none of an architecture; weights come from weights=…"
        )
    from cytolib import framing, inference, timm_models, transforms  # torch and timm: seconds to import

    own = {key: options[key] for key in _OWN_OPTIONS if key in options}
    given = {key: _literal(value) for key, value in options.items() if key not in _OWN_OPTIONS} | dict(head)
    built = timm_models.build(name, architecture, given, located, image_size, pretrained, resample)
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
    if built.positions:
        metadata["positions"] = built.positions
    if isinstance(transform, transforms.WindowNormalise):
        metadata["source_sha256"] = framing.source_sha256()
        metadata["versions"] = _versions("timm", "morphometry")  # which finds the cell
    forward = inference.make_forward(built.model, transform)
    return Encoder(full, built.dim, built.image_size, metadata, forward, forward.batch_size), transform


def _located(name: str, given: str | Path | None, weights_sha256: str | None) -> tuple[Path, str] | None:
    if given is not None:
        return weight_files.locate(given, weights_sha256)
    if weights_sha256 is not None:
        raise ValueError(f"encoder {name!r}: weights_sha256 is given without weights; say which file, URL or hub copy")
    return None


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
