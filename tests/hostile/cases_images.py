"""Image folders: what is no picture, lies about itself, or is no file at all. The rest of the folder is read."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from cytolib.data.images import cell_id
from cytolib.data.registry import data_set
from cytolib.embedding_loader import Task, load_checked
from tests.hostile.case import Door, case, command, line_with
from tests.hostile.payloads import chunk, good_image, own_folder, png

CHECK = "cytolib data check folder:set"


def check(folder: Path, word: str) -> Door:
    """Read the set and return the line about the hostile file; the good one beside it must have been read."""

    def door() -> str:
        lines = command("data", "check", "folder:set", "--root", str(folder))
        assert "images      1; no published number to compare with" in lines, lines
        return line_with(lines, word)

    return door


def image_case(name: str, content: bytes, input: str, *says: str) -> None:
    """A file of these bytes in an image folder."""

    @case(input, CHECK, name, *says, goes_on=True)
    def _(folder: Path) -> Door:
        (own_folder(folder) / name).write_bytes(content)
        return check(folder, name)


def _encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (48, 40), **options: object) -> bytes:
    import io

    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(out, format, **options)
    return out.getvalue()


def _animated(format: str) -> bytes:
    import io

    frames = [Image.new("RGB", (48, 40), colour) for colour in ("red", "blue", "green")]
    out = io.BytesIO()
    frames[0].save(out, format, save_all=True, append_images=frames[1:])
    return out.getvalue()


def _sixteen_bit() -> bytes:
    import io

    out = io.BytesIO()
    Image.fromarray(np.full((40, 48), 4000, dtype=np.uint16)).save(out, "PNG")
    return out.getvalue()


def _huge_tiff() -> bytes:
    """One tag that announces 2^32 - 1 values."""
    tags = [(256, 4, 1, 48), (257, 4, 1, 40), (258, 3, 1, 8), (270, 2, 0xFFFFFFFF, 8), (273, 4, 0xFFFFFFF0, 8)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000), 9))

image_case(
    "huge.png", png(65535, 65535, chunk(b"IDAT", b"x")), "PNG that says it is 65535 x 65535", "4294836225 pixels"
)
image_case("wide.png", png(0x7FFFFFFF, 1, chunk(b"IDAT", b"x")), "PNG of 2^31 - 1 pixels a row", "2147483647 pixels")
image_case("bomb.png", _encoded("PNG", "1", (9000, 9000)), "PNG of few bytes and 81 megapixels", "9000 x 9000 pixels")
image_case("bomb2.png", png(12000, 12000, chunk(b"IDAT", b"x")), "PNG of 144 megapixels", "144000000 pixels")
image_case("text.png", png(48, 40, TEXT_BOMB), "PNG with 50 MB of zeros packed into a text", "not a readable image")
image_case("cut.jpg", _encoded("JPEG")[:700], "JPEG cut in the middle", "truncated")
image_case("empty.png", b"", "image file of 0 bytes", "the file is empty")
image_case("gif.jpg", _encoded("GIF"), "GIF named .jpg", "none of JPEG, PNG, TIFF and BMP")
image_case("svg.jpg", SCRIPT, "SVG with a script, named .jpg", "none of JPEG, PNG, TIFF and BMP")
image_case("page.jpg", b"<!DOCTYPE html><script>alert(1)</script>", "web page named .jpg", "none of JPEG")
image_case(
    "program.png",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\n(canary) run\n",
    "PostScript program named .png",
    "none of JPEG",
)
image_case("tags.tif", _huge_tiff(), "TIFF whose tags announce 2^32 values", "not a readable image")
image_case("moving.png", _animated("PNG"), "animated PNG", "several pictures")
image_case("pages.tif", _animated("TIFF"), "TIFF of several pages", "several pictures")
image_case("deep.png", _sixteen_bit(), "16-bit grey PNG", "mode I;16", "convert it first")
image_case("print.jpg", _encoded("JPEG", "CMYK"), "JPEG in printers' colours (CMYK)", "mode CMYK", "convert it first")
image_case("tiny.png", _encoded("PNG", "RGB", (7, 8)), "image of 7 x 8 pixels", "at least 16 a side")
image_case("table.xlsx", b"PK\x03\x04", "spreadsheet among the images", "not an image by its name")
image_case("inner.zip", b"PK\x03\x04" + bytes(100), "zip in an image folder (nested bomb)", "not an image by its name")


@case("named pipe (FIFO) among the images", CHECK, "pipe.png", "a pipe or a device", goes_on=True)
def _(folder: Path) -> Door:
    os.mkfifo(own_folder(folder) / "pipe.png")
    return check(folder, "pipe.png")


@case("link to /dev/zero among the images", CHECK, "endless.png", "a pipe or a device", goes_on=True)
def _(folder: Path) -> Door:
    (own_folder(folder) / "endless.png").symlink_to("/dev/zero")
    return check(folder, "endless.png")


@case("link to itself among the images", CHECK, "circle.png", "Too many levels", goes_on=True)
def _(folder: Path) -> Door:
    (own_folder(folder) / "circle.png").symlink_to("circle.png")
    return check(folder, "circle.png")


@case("link to /etc/passwd among the images", CHECK, "users.png", "none of JPEG", goes_on=True)
def _(folder: Path) -> Door:
    (own_folder(folder) / "users.png").symlink_to("/etc/passwd")
    return check(folder, "users.png")


@case("file name with an escape sequence and a line end", CHECK, "\\x1b[2J", "rename it", goes_on=True)
def _(folder: Path) -> Door:
    good_image(own_folder(folder) / "a\x1b[2J\nall is as published.png", 3)
    return check(folder, "[2J")


@case("file name that turns direction (U+202E)", CHECK, "\\u202e", "rename it", goes_on=True)
def _(folder: Path) -> Door:
    good_image(own_folder(folder) / "cell_\u202egnp.png", 3)
    return check(folder, "cell_")


@case("file name that is no UTF-8", CHECK, "\\udcff", "rename it", goes_on=True)
def _(folder: Path) -> Door:
    good_image(own_folder(folder) / "good2.png", 3).rename(folder / "set" / "neutrophil" / os.fsdecode(b"\xff.png"))
    return check(folder, "udcff")


@case("class folder that nobody knows, with a script for a name", CHECK, "label '<script>", "not in the label map")
def _(folder: Path) -> Door:
    own_folder(folder)
    good_image(folder / "set" / "<script>alert(1)<script>" / "a.png")
    return lambda: command("data", "check", "folder:set", "--root", str(folder))


@case("class folder with an escape sequence for a name", CHECK, "\\x1b[2J", "not in the label map")
def _(folder: Path) -> Door:
    own_folder(folder)
    good_image(folder / "set" / "\x1b[2J" / "a.png")
    return lambda: command("data", "check", "folder:set", "--root", str(folder))


@case("folder of images above the data root", "cytolib data check folder:../x", "folder:../x", "inside the data root")
def _(folder: Path) -> Door:
    own_folder(folder)
    return lambda: command("data", "check", "folder:../x", "--root", str(folder / "set"))


@case("absolute folder of images", "cytolib data check folder:/etc", "folder:/etc", "inside the data root")
def _(folder: Path) -> Door:
    return lambda: command("data", "check", "folder:/etc", "--root", str(folder))


@case("cell table that names a pipe", "embed", "pipe.png", "a pipe or a device")
def _(folder: Path) -> Door:
    os.mkfifo(folder / "pipe.png")
    return lambda: load_checked(Task(str(folder / "pipe.png"), "0" * 64, None), 0.0)


@case("cell table that names /dev/zero", "embed", "/dev/zero", "a pipe or a device")
def _(folder: Path) -> Door:
    return lambda: load_checked(Task("/dev/zero", "0" * 64, None), 0.0)


@case("image exchanged since it was read", "embed", "a.png", "the image was changed")
def _(folder: Path) -> Door:
    old = cell_id(good_image(folder / "a.png", 1))
    good_image(folder / "a.png", 2)
    return lambda: load_checked(Task(str(folder / "a.png"), old, None), 0.0)


def read_harmless(folder: Path) -> str:
    """Pictures that are odd but sound: all of them are read. For the tests, not for the table."""
    own = own_folder(folder)
    turned = Image.Exif()
    turned[274] = 6
    good_image(own / "turned.jpg", 2, exif=turned)
    Image.open(good_image(own / "seen.png", 3)).convert("RGBA").save(own / "clear.png")
    reading = data_set("folder:set").read(folder, folder)
    assert reading.refused.empty
    return (
        f"{len(reading.cells)} cells, {sorted(set(zip(reading.cells['width'], reading.cells['height'], strict=True)))}"
    )
