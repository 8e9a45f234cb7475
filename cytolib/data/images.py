"""Images of single cells: reading, cropping in micrometres, masks, and the facts that identify an image."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cytolib.text import printable

#: What is opened, whatever a file is called: Pillow knows dozens more, and hands PostScript to a program.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "TIFF", "BMP")
MODES: frozenset[str] = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
IMAGE_SUFFIXES: frozenset[str] = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 64_000_000  # a single cell is under a megapixel; more is a slide or a bomb
MAX_BYTES = 256_000_000
MIN_SIDE = 16  # pixels; BloodMNIST's smallest images have 28, and Chula holds one crop of 7 x 8
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE squared bits
# What Pillow raises for damaged files of one format or another.
_DAMAGED = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow only warns of pictures up to 179 megapixels


@dataclass(frozen=True)
class ImageFacts:
    """What identifies an image: ``cell_id`` (sha256 of the file), size in pixels, perceptual hash (hexadecimal)."""

    cell_id: str
    width: int
    height: int
    perceptual_hash: str


def load_image(
    path: str | Path,
    field_of_view_um: float = 0.0,
    um_per_px: float | None = None,
    *,
    opened: IO[bytes] | None = None,
) -> Image.Image:
    """Read one image as RGB; transparent pixels become white, as the empty slide is.

    Args:
        path: the file.
        field_of_view_um: side of the central square that is kept, in micrometres; 0 keeps the whole image.
        um_per_px: micrometres a pixel of this image; needed for a field of view.
        opened: the same file, where it is open already.

    Raises:
        ValueError: if the file is no readable image or too large, or the field of view or scale makes no sense.
        FileNotFoundError: if there is no such file.
    """
    check_plain(path)
    try:
        with Image.open(opened or path, formats=FORMATS) as file:
            image = _as_rgb(file, str(path))
    except _DAMAGED as error:
        raise _refusal(path, error) from error
    return image if field_of_view_um == 0 else crop_field(image, field_of_view_um, um_per_px, str(path))


def check_plain(path: str | Path) -> int:
    """The size in bytes of a plain file, or of the one that a link leads to; opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming it, if it is a folder, a pipe or a device.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name has a zero character"
        raise ValueError(f"{printable(str(path))[:300]}: cannot be read ({reason}); mend it or take it out") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise ValueError(f"{path}: it is {kind}; expected a plain file, take it out")
    return found.st_size


def _refusal(path: str | Path, error: BaseException) -> ValueError:
    if isinstance(error, ValueError) and str(error).startswith(str(path)):
        return error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        pixels = re.search(r"\d+", str(error))
        return ValueError(f"{path}: {pixels[0] if pixels else 'too many'} pixels; a single cell has under {MAX_PIXELS}")
    reason = printable((str(error).strip().splitlines() or [type(error).__name__])[0])[:120]
    if isinstance(error, UnidentifiedImageError):  # its own words end in a memory address
        reason = "none of JPEG, PNG, TIFF and BMP"
    return ValueError(f"{path}: not a readable image ({reason}); replace it or take it out")


def _as_rgb(file: Image.Image, name: str) -> Image.Image:
    if file.width * file.height > MAX_PIXELS:
        raise ValueError(f"{name}: {file.width} x {file.height} pixels; a single cell has under {MAX_PIXELS}")
    if file.format != "MPO" and getattr(file, "is_animated", False):  # a camera's MPO holds a preview beside the image
        raise ValueError(f"{name}: it holds several pictures; expected one, save the one that is meant")
    if file.mode not in MODES:
        # 16-bit and floating point greys: convert("RGB") would clip nearly all of them to white. Printers' colours
        # (CMYK) and Lab have no one meaning in RGB.
        raise ValueError(f"{name}: pixels of mode {file.mode}; expected 8-bit colour or grey, convert it first")
    if file.mode in ("RGBA", "LA", "PA") or (file.mode == "P" and "transparency" in file.info):
        rgba = file.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return file.convert("RGB")


def crop_field(
    image: Image.Image, field_of_view_um: float, um_per_px: float | None, name: str = "image"
) -> Image.Image:
    """The central square of ``field_of_view_um`` micrometres, at the image's own resolution.

    Where the image is smaller, it is padded with the median colour of its border, which is mostly empty slide: so that
    a cell keeps its size whatever the frame that its laboratory cut around it.

    Raises:
        ValueError: for a field or a scale that is not a positive number.
    """
    if not (math.isfinite(field_of_view_um) and field_of_view_um > 0):
        raise ValueError(f"field_of_view_um is {field_of_view_um}; expected micrometres above 0, or 0 for all of it")
    if um_per_px is None or not (math.isfinite(um_per_px) and um_per_px > 0):
        raise ValueError(f"{name}: um_per_px is {um_per_px}; a field of view in micrometres needs the image's scale")
    side = max(1, round(field_of_view_um / um_per_px))
    if side * side > MAX_PIXELS:
        raise ValueError(f"{name}: {field_of_view_um} um at {um_per_px} um a pixel is {side} pixels a side; too large")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if left >= 0 and top >= 0:
        return image.crop((left, top, left + side, top + side))
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(border, axis=0))
    padded = Image.new("RGB", (side, side), (red, green, blue))
    padded.paste(image, (-left, -top))
    return padded


def inspect_image(path: str | Path) -> ImageFacts:
    """Read a file once, decode all of it, and say what it is.

    The perceptual hash is ImageHash's DCT hash of the whole frame: equal or close for the same picture re-saved,
    resized or slightly moved, far for two cells of one class (``cytolib.data.duplicates`` has the distances).

    Raises:
        ValueError: naming the file, if it is empty, truncated, too large, too small or no image; FileNotFoundError.
    """
    import imagehash  # SciPy and PyWavelets: half a second, only for those who read data sets

    path = Path(path)
    size = check_plain(path)
    if size == 0:
        raise ValueError(f"{path}: the file is empty; replace it or take it out")
    if size > MAX_BYTES:
        raise ValueError(f"{path}: {size:,} bytes; a single cell has under {MAX_BYTES:,}: is it a slide?")
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            image = _as_rgb(file, str(path))
    except _DAMAGED as error:
        raise _refusal(path, error) from error
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"{path}: {image.width} x {image.height} pixels; a cell needs at least {MIN_SIDE} a side")
    digest = hashlib.sha256(content).hexdigest()
    return ImageFacts(digest, image.width, image.height, str(imagehash.phash(image, hash_size=HASH_SIDE)))


def load_mask(path: str | Path) -> NDArray[np.uint8]:
    """A mask (H, W) uint8: 0 background, 1 cytoplasm, 2 nucleus; files hold these numbers, or 0, 128 and 255.

    Raises:
        ValueError: naming the file, if it is no readable mask; FileNotFoundError.
    """
    check_plain(path)
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{path}: {file.width} x {file.height} pixels; expected under {MAX_PIXELS}")
            values = _mask_values(file, str(path))
    except _DAMAGED as error:
        raise _refusal(path, error) from error
    if values.max(initial=0) <= 2:
        return values.astype(np.uint8)
    # Masks saved as JPEG waver around their three greys.
    if (np.abs(values.astype(int)[..., None] - np.array([0, 128, 255])).min(-1) > 40).mean() > 0.01:
        raise ValueError(f"{path}: not a mask; expected the greys 0, 128 and 255, or the numbers 0, 1 and 2")
    return np.digitize(values, [64, 192]).astype(np.uint8)


def _mask_values(file: Image.Image, name: str) -> NDArray[np.uint8]:
    """The greys of a mask (H, W), or its numbers where it has a palette of colours, as annotation tools write it."""
    if file.mode.startswith(("I", "F")):
        numbers = np.asarray(file)
        if numbers.min(initial=0) < 0 or numbers.max(initial=0) > 255:  # convert("L") would clip all of them to white
            raise ValueError(f"{name}: not a mask; its numbers go beyond 0 to 255, save it with 8 bits")
    if file.mode == "P":
        colours = np.asarray(file.convert("RGB"))
        if (colours != colours[..., :1]).any():
            return np.asarray(file)
    return np.asarray(file.convert("L"))


def cell_id(path: str | Path) -> str:
    """SHA-256 of the image file's bytes: the identity of a cell, whatever its name or folder.

    Raises:
        FileNotFoundError, ValueError: naming the file, if it is no plain file.
    """
    check_plain(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
