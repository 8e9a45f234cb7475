"""Training of the shipped encoder: it goes on exactly, sees what it may see, and writes what the package loads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cytolib.data import phantoms
from cytolib.data.duplicates import hash_words
from cytolib.data.prepare import NEAR_DUPLICATE_BITS, prepare_cells
from cytolib.encoders import get_encoder
from training import material, pretrain_encoder
from training.material import LIST, Material, draw, pbc_cells, seen_cells
from training.method import Method, together
from training.pretrain_encoder import CHECKPOINT, Recipe, export, make_backbone, train
from training.views import Views, normalised

TINY = "mobilenetv3_small_050"


class Pull(Method):
    """Views of one cell alike, cells apart: a method without heads, so that tests need no extra package."""

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(together(first, second))
        one, other = functional.normalize(features.float(), dim=1).chunk(2)
        return functional.cross_entropy(one @ other.T / 0.2, torch.arange(len(one))), features


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(pretrain_encoder, "make_method", lambda name, backbone, dim: Pull(backbone, dim))
    return Recipe(arch=TINY, size=64, epochs=3, batch=8, phantoms=0, regress=0.5)


@pytest.fixture(scope="module")
def few() -> Material:
    images = np.concatenate([draw(number) for number in range(10)])
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    return Material(images, features, np.arange(20) ^ 1)


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / CHECKPOINT, weights_only=True)["learner"]


def test_killed_training_goes_on_to_the_same_weights(
    recipe: Recipe, few: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, few, tmp_path / "whole", progress=False)
    step = pretrain_encoder._step

    def dies(*arguments: object) -> float:
        if arguments[-1] == 4:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain_encoder, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path / "killed", every=3, progress=False)
    assert torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)["step"] == 3
    monkeypatch.setattr(pretrain_encoder, "_step", step)
    train(recipe, few, tmp_path / "killed", every=3, progress=False)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    train(replace(recipe, seed=1), few, tmp_path / "other", progress=False)
    assert any(not torch.equal(first[name], value) for name, value in weights(tmp_path / "other").items())


def test_a_checkpoint_of_another_recipe_is_refused(recipe: Recipe, few: Material, tmp_path: Path) -> None:
    train(replace(recipe, epochs=1), few, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another recipe \(epochs, seed differ\); give another --out"):
        train(replace(recipe, epochs=2, seed=5), few, tmp_path, progress=False)


def test_the_loss_falls(recipe: Recipe, few: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = pretrain_encoder._step
    monkeypatch.setattr(pretrain_encoder, "_step", lambda *a: losses.append(step(*a)) or losses[-1])
    train(replace(recipe, epochs=20, regress=0.0), few, tmp_path, progress=False)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_exported_weights_are_loaded_by_the_package(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(TINY, 64).eval()
    digest = export(backbone, tmp_path / "w.safetensors", {"recipe": "{}"})
    model, transform = get_encoder(
        f"timm:{TINY}?mean=0.7&std=0.2&image_size=64&weights={tmp_path / 'w.safetensors'}&weights_sha256={digest}"
    )
    image = draw(0)[0]
    resized = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    with torch.no_grad():
        wanted = backbone(normalised(torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255))
    assert np.allclose(model([transform(Image.fromarray(image))]), wanted.numpy(), atol=0.02, rtol=0.02)
    assert (tmp_path / "w.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in backbone.parameters())


def test_views_keep_the_nucleus_and_differ_mildly() -> None:
    """Dark pixels of the middle, the nucleus, stay in the picture at every zoom and shift."""
    side = 176
    across = torch.arange(side) - (side - 1) / 2
    disc = (across[:, None] ** 2 + across[None] ** 2).sqrt() < 30  # a nucleus of 12 um in a field of 36 um
    image = (1.0 - 0.8 * disc.float()).expand(16, 3, -1, -1).contiguous()
    views = Views()
    zoom = torch.full((16,), views.zoom)
    seen = views(image, zoom, torch.Generator().manual_seed(0)) * 0.2 + 0.7
    area = (seen.mean(1) < 0.6).float().sum((1, 2)) / (0.8 * views.size / 2) ** 2
    wanted = math.pi * (30 / 88 * views.zoom) ** 2 / 0.64
    assert (area > 0.7 * wanted).all() and (area < 1.4 * wanted).all()
    again = views(image, zoom, torch.Generator().manual_seed(0)) * 0.2 + 0.7
    assert torch.equal(seen, again)
    other = views(image, zoom, torch.Generator().manual_seed(1)) * 0.2 + 0.7
    assert 0.003 < float((seen - other).abs().mean()) < 0.2


def test_phantoms_of_the_held_out_class_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str, int]] = []
    true = phantoms.draw_cell

    def listens(label: str, site: str, seed: int, size: int) -> phantoms.PhantomCell:
        drawn.append((label, site, seed))
        return true(label, site, seed=seed, size=size)

    monkeypatch.setattr(phantoms, "draw_cell", listens)
    for number in range(20):
        draw(number)
    assert {label for label, _, _ in drawn} == set(phantoms.CLASSES) and phantoms.HELD_OUT not in phantoms.CLASSES
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):  # the same cell at two sites
        assert one[0] == other[0] and one[2] == other[2] and one[1] != other[1]


def test_the_list_of_images_is_whole() -> None:
    listed = pd.read_parquet(LIST)
    assert listed["cell_id"].is_unique and len(listed) == 8478
    assert listed["cell_id"].str.fullmatch("[0-9a-f]{64}").all()


def test_nothing_but_the_training_split_was_seen(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No validation, test or lilac image, none of another site, exact or near: by the list that training held to."""
    monkeypatch.setenv("CYTOLIB_DATA", str(real_data))
    cells = pbc_cells()
    if len(cells) != 14_504:
        pytest.skip(f"another copy of PBC, {len(cells):,} cells: its split is another one than that of the training")
    listed = pd.read_parquet(LIST)
    assert set(listed["cell_id"]) == set(seen_cells(cells)["cell_id"])
    others = cells[~cells["cell_id"].isin(listed["cell_id"])]
    assert set(others["split"]) == {"val", "test", "held_out"} and (others["domain"] == "pbc_lilac").any()
    elsewhere = [others]
    for name in ("zheng1", "zheng2", "chula", "choi"):
        drawn = dict(n_cells=0, n_held_out=0, image_size=0, val_fraction=0.2, test_fraction=0.2)
        elsewhere.append(prepare_cells(name, tmp_path, **drawn).cells)
    found = pd.concat(elsewhere)
    assert not set(found["cell_id"]) & set(listed["cell_id"])
    ours, theirs = (hash_words(part["perceptual_hash"].tolist()) for part in (listed, found))
    nearest = min(int(np.bitwise_count(theirs ^ row).sum(axis=1).min()) for row in ours)
    assert nearest > NEAR_DUPLICATE_BITS


def test_a_list_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="names 8,478 images, 8,478 of them are not here, and 1 here are not named"):
        material.check_list(pd.DataFrame({"cell_id": ["0" * 64]}))
