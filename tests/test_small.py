"""The encoder that ships with the package: there without a network, the bytes that its card names, and of use."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier

from cytolib import run, small
from cytolib.classify.probes import balanced_accuracy
from cytolib.data import phantoms
from cytolib.encoders import get_encoder
from cytolib.morphometry import FEATURE_NAMES


def test_the_file_is_small_half_precision_and_the_one_that_is_named() -> None:
    assert run.sha256(small.FILE) == small.SHA256
    assert small.FILE.stat().st_size <= 12e6
    kinds = {value.dtype for value in load_file(small.FILE).values() if value.is_floating_point()}
    assert kinds == {torch.float16}
    card = small.FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert small.SHA256 in card and "CC BY 4.0" in card


def test_it_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    model, transform = get_encoder(small.NAME)
    assert model.name == small.NAME and model.dim == small.DIM and model.image_size == small.IMAGE_SIZE
    assert model.metadata["weights_sha256"] == small.SHA256
    assert transform(Image.new("RGB", (50, 40))).shape == (3, small.IMAGE_SIZE, small.IMAGE_SIZE)


def test_another_file_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = bytearray(small.FILE.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(changed)
    monkeypatch.setattr(small, "FILE", tmp_path / "changed.safetensors")
    with pytest.raises(ValueError, match="sha256"):
        get_encoder(small.NAME)


@pytest.mark.parametrize("option", ["weights=a.safetensors", "mean=0.5", "framing=whole", "weights_sha256=ab"])
def test_it_has_no_options(option: str) -> None:
    with pytest.raises(ValueError, match=r"has its own weights and transform"):
        get_encoder(f"{small.NAME}?{option}")


def test_side_by_side_with_the_classical_features() -> None:
    model, transform = get_encoder(f"{small.NAME}+morphometry")
    image = Image.fromarray(phantoms.draw_cell("neutrophil", "site_a", seed=1, size=96).image)
    both = model([transform(image)])
    assert both.shape == (1, small.DIM + len(FEATURE_NAMES)) and np.isfinite(both).all()


def test_it_knows_cells_that_it_has_not_seen() -> None:
    """Five neighbours among phantoms of one site call the class of phantoms of another, far above an untrained one."""
    cells = {
        site: [
            (label, Image.fromarray(phantoms.draw_cell(label, site, seed=10**6 + k, size=128).image))
            for label in phantoms.CLASSES
            for k in range(12)
        ]
        for site in ("site_a", "site_b")
    }
    scores = {}
    for name in (small.NAME, f"timm:{small.ARCHITECTURE}?framing=cell&image_size={small.IMAGE_SIZE}"):
        model, transform = get_encoder(name, pretrained=name == small.NAME)
        X, Z = (model([transform(image) for _, image in cells[site]]) for site in cells)
        y, truth = (np.array([label for label, _ in cells[site]]) for site in cells)
        called = KNeighborsClassifier(5, metric="cosine").fit(X, y).predict(Z)
        scores[name == small.NAME] = balanced_accuracy(truth, called)
    assert scores[True] > scores[False] + 0.1
