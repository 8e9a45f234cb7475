"""Weights files and encoders' names: data that could be code, or far larger than it looks."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import timm
import torch
from safetensors.torch import save_file

from cytolib import timm_models  # noqa: F401 (imported before the first fork)
from cytolib.encoders import get_encoder
from tests.hostile.case import Door, case
from tests.hostile.payloads import Payload, evil_pickle

SMALL = "timm:test_resnet.r160_in1k"  # timm's own smallest
GET = "get_encoder"


def weights_case(input: str, name: str, make: Callable[[Path, Path], None], *says: str) -> None:
    """A weights file for a small encoder: ``make(file, folder)`` writes it."""

    @case(input, GET, name, *says)
    def _(folder: Path) -> Door:
        make(folder / name, folder)
        return lambda: get_encoder(SMALL, weights=folder / name)


def _state() -> dict[str, torch.Tensor]:
    return timm.create_model("test_resnet.r160_in1k", num_classes=0).state_dict()


def _packed(file: Path, _: Path) -> None:
    """A torch file whose record is packed: 400 MB of zeros in some kilobytes."""
    plain = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            bomb = name.endswith("data/0")
            kind = zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED
            new.writestr(name, bytes(400_000_000) if bomb else old.read(name), compress_type=kind)


def _stretched(file: Path, _: Path) -> None:
    """A tensor of 10^12 numbers, all of them one and the same in memory."""
    state = _state()
    first = next(iter(state))
    torch.save({**state, first: torch.zeros(1).expand(10**6, 10**6)}, file)


def _header(header: bytes, length: int | None = None, data: bytes = b"") -> Callable[[Path, Path], None]:
    """A safetensors file with this header, which says to have another length."""

    def make(file: Path, _: Path) -> None:
        file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)

    return make


def _entry(start: int, end: int, *shape: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


def _json(values: Any) -> bytes:
    return json.dumps(values).encode()


def _not_finite(file: Path, _: Path) -> None:
    state = _state()
    first = next(name for name, tensor in state.items() if tensor.is_floating_point())
    save_file({**state, first: torch.full_like(state[first], float("nan"))}, file)


weights_case("pickle as .pth (legacy)", "w.pth", lambda f, d: _write(f, evil_pickle(d)), "not run")
weights_case("torch file with a payload, .pt", "w.pt", lambda f, d: torch.save({"a": Payload(d)}, f), "not run")
weights_case("torch file with a payload, .bin", "w.bin", lambda f, d: torch.save(Payload(d), f), "not run")
weights_case("pickle named .safetensors", "w.safetensors", lambda f, d: _write(f, evil_pickle(d)), "not a readable")
weights_case("joblib file as weights", "w.joblib", lambda f, d: joblib.dump(Payload(d), f), "w.joblib")
weights_case("NumPy object array as weights", "w.npy", lambda f, d: _save_objects(f, d), "not a readable weights file")
weights_case("torch file with a packed record (bomb)", "w.pth", _packed, "would become 400,000,000 bytes")
weights_case("tensor of 10^12 numbers in 4 bytes", "w.pth", _stretched, "has shape (1000000, 1000000)")
weights_case("safetensors header of 2^63 bytes", "w.safetensors", _header(b"{}", 2**63), "not a readable safetensors")
weights_case("safetensors header of 300 MB announced", "w.safetensors", _header(b"{}", 300_000_000), "not a readable")
weights_case(
    "safetensors with overlapping tensors",
    "w.safetensors",
    _header(_json({"a": _entry(0, 8, 2), "b": _entry(4, 12, 2)}), data=bytes(12)),
    "not a readable safetensors",
)
weights_case(
    "safetensors with offsets beyond the file",
    "w.safetensors",
    _header(_json({"a": _entry(0, 4 * 10**12, 10**12)})),
    "not a readable safetensors",
)
weights_case(
    "safetensors nested 100,000 deep", "w.safetensors", _header(b'{"a":' * 100_000), "not a readable safetensors"
)
weights_case("weights that are not finite", "w.safetensors", _not_finite, "values that are not finite")


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _save_objects(file: Path, folder: Path) -> None:
    np.save(file, np.array([Payload(folder)], dtype=object), allow_pickle=True)


def name_case(input: str, name: str, *says: str, **arguments: Any) -> None:
    """An encoder's name, as a configuration may hold it."""

    @case(input, GET, *says)
    def _(folder: Path) -> Door:
        (folder / "evil.pth").write_bytes(evil_pickle(folder))
        return lambda: get_encoder(name.replace("FOLDER", str(folder)), **arguments)


name_case("encoder's name that is code", "__import__('os').mkdir('canary')", "is unknown", "__import__")
name_case("weights by file://", "dinobloom-s", "file:///etc/passwd", "https://", weights="file:///etc/passwd")
name_case(
    "DinoBloom by http:// without a checksum",
    "dinobloom-s?weights=http://evil.example/D.pth",
    "http://evil",
    "weights_sha256",
)
name_case("weights by another protocol", f"{SMALL}?weights=ftp://evil.example/w.pth", "ftp://evil", "expected a file")
name_case(
    "hub name that leaves its repository", f"{SMALL}?weights=hf-hub:a/b/../../../etc/passwd", "leaves its repository"
)
name_case("hub name with code", f"{SMALL}?weights=hf-hub:$(touch evil)", "hf-hub:<owner>/<repository>")
name_case("timm option that loads another file", f"{SMALL}?checkpoint_path=FOLDER/evil.pth", "'checkpoint_path'")
name_case(
    "timm option with a configuration of its own",
    f"{SMALL}?pretrained_cfg={{'file':'FOLDER/evil.pth'}}",
    "'pretrained_cfg'",
)
name_case("image size of 10^9 pixels", f"{SMALL}?image_size=1000000000", "image_size", "positive number")
name_case("image size of 100,000 pixels", f"{SMALL}?image_size=100000", "image_size", "1 to 2048")
name_case("standard deviation nan", f"{SMALL}?std=nan", "std is (nan, nan, nan)", pretrained=False)
name_case("model of timm that is not there, with a path", "timm:../../evil", "timm has no model")
name_case("option with brackets nested 100,000 deep", f"{SMALL}?depth={'[' * 100_000}", SMALL, pretrained=False)
