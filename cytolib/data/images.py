"""Images of single cells: reading, cropping, hashing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES: frozenset[str] = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 64_000_000  # a single cell is under a megapixel; more is a slide or a bomb


def load_image(path: str | Path, field_of_view: float = 1.0) -> Image.Image:
    """Read one image as RGB and keep the central ``field_of_view`` fraction of its width and height.

    Transparent pixels become white, as the empty slide is.

    Raises:
        ValueError: if the file is no readable image or larger than ``MAX_PIXELS``, or ``field_of_view`` not in (0, 1].
        FileNotFoundError: if there is no such file.
    """
    if not 0 < field_of_view <= 1:
        raise ValueError(f"field_of_view is {field_of_view}; expected a fraction in (0, 1]")
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{path}: {file.width} x {file.height} pixels; a single cell has under {MAX_PIXELS}")
            image = _on_white(file) if file.mode in ("RGBA", "LA", "PA") else file.convert("RGB")
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); replace it or take it out") from error
    if field_of_view == 1:
        return image
    width, height = (max(1, round(side * field_of_view)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def cell_id(path: str | Path) -> str:
    """SHA-256 of the image file's bytes: the identity of a cell, whatever its name or folder."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
