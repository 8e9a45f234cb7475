"""Encoders side by side: ``first+second`` is the vector of the first and then that of the second, for each cell."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from cytolib.encoders import Encoder, Transform

SEPARATOR = "+"
# A plus sign may stand in a path or an address: only one before an encoder's name separates.
_BEFORE_A_NAME = re.compile(r"\+(?=(?:morphometry|cytolib-|dinobloom-|dinov2-|timm:))")


def parts_of(name: str) -> list[str]:
    """Names of the encoders that stand side by side in ``name``; one for a single encoder.

    Raises:
        ValueError: if one stands there twice.
    """
    parts = _BEFORE_A_NAME.split(name)
    if len(set(parts)) < len(parts):
        raise ValueError(f"encoder {name!r}: one encoder stands there twice; name each once")
    return parts


def join_metadata(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Metadata of embeddings side by side: where parts differ, all values in order, with plus signs between them."""
    keys = dict.fromkeys(key for part in parts for key in part if key != "fingerprint")
    joined = {}
    for key in keys:
        values = [part[key] for part in parts if key in part]
        apart = key in ("encoder", "dimensions") or len(set(values)) > 1
        joined[key] = SEPARATOR.join(values) if apart else values[0]
    if all("fingerprint" in part for part in parts):
        joined["fingerprint"] = fingerprint([part["fingerprint"] for part in parts])
    return joined


def fingerprint(parts: Sequence[str]) -> str:
    """SHA-256 of the parts' fingerprints."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


class SideBySide:
    """Transform and forward of several encoders at once: a cell is a tuple, a part of it for each encoder."""

    def __init__(self, parts: Sequence[tuple[Encoder, Transform]]) -> None:
        self.encoders = [encoder for encoder, _ in parts]
        self.transforms = [transform for _, transform in parts]

    def transform(self, image: Image.Image) -> tuple[Any, ...]:
        """What each encoder takes of one cell."""
        return tuple(transform(image) for transform in self.transforms)

    def forward(self, batch: Sequence[tuple[Any, ...]]) -> NDArray[np.float32]:
        """Embeddings (B, sum of the encoders' dims) of what ``transform`` gave for each cell."""
        columns = zip(*batch, strict=True)
        return np.hstack([encoder(list(column)) for encoder, column in zip(self.encoders, columns, strict=True)])
