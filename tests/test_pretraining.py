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
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from cytolib.data import phantoms
from cytolib.data.duplicates import hash_words
from cytolib.data.prepare import NEAR_DUPLICATE_BITS, prepare_cells
from cytolib.encoders import get_encoder
from cytolib.views import BEYOND, Views, middles, wide_window
from training import learner, material, pretrain_encoder
from training.export import embedded, export, with_components
from training.learner import Recipe, make_backbone
from training.material import (
    LIST,
    Material,
    draw,
    neighbours_of,
    pbc_cells,
    seen_cells,
)
from training.method import Method, together
from training.pretrain_encoder import CHECKPOINT, _partners, generator_of, train
from training.shifted import SITES, shifted

TINY = "mobilenetv3_small_050"


class Pull(Method):
    """Views of one cell alike, cells apart: a method without heads, so that tests need no extra package."""

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(together(first, second))
        one, other = functional.normalize(features.float(), dim=1).chunk(2)
        return functional.cross_entropy(one @ other.T / 0.2, torch.arange(len(one))), features


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(learner, "make_method", lambda name, backbone, dim: Pull(backbone, dim))
    return Recipe(
        arch=TINY,
        size=64,
        epochs=3,
        batch=8,
        phantoms=0,
        regress=0.5,
        neighbour=0.5,
        early_size=32,
        early_share=0.4,
        components=8,
    )


@pytest.fixture(scope="module")
def few() -> Material:
    images = np.stack(
        [wide_window(Image.fromarray(field), material.SIDE) for number in range(10) for field in draw(number)]
    )
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    return Material(images, features, np.arange(20) ^ 1, neighbours_of(features))


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
    train(replace(recipe, epochs=20, regress=0.0, neighbour=0.0, early_share=0.0), few, tmp_path, progress=False)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_exported_weights_give_the_principal_components(recipe: Recipe, few: Material, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(TINY, 64).eval()
    seen = middles(few.images)
    encoder = with_components(backbone, recipe, seen, 64)
    found, whole = embedded(encoder, seen, 64), embedded(backbone, seen, 64)
    assert found.shape == (20, 8) and np.allclose(found.mean(0), 0, atol=1e-3)
    known = PCA(8, svd_solver="covariance_eigh").fit_transform(whole)
    apart = [np.linalg.norm(X[:, None] - X[None], axis=2) for X in (found, known)]
    assert np.allclose(*apart, atol=1e-3 * apart[0].max())  # rotated components: the same distances
    digest = export(encoder, tmp_path / "w.safetensors", {"recipe": "{}"})
    model, transform = get_encoder(
        f"timm:{TINY}?mean=0.7&std=0.2&image_size=64&weights={tmp_path / 'w.safetensors'}&weights_sha256={digest}"
    )
    assert model.dim == whole.shape[1]  # loaded without the head, it is any timm model
    image = Image.fromarray(seen[0]).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.allclose(model([transform(image)]), whole[:1], atol=0.02, rtol=0.02)
    assert (tmp_path / "w.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in encoder.parameters())


def test_partners_are_twins_or_neighbours(recipe: Recipe, few: Material) -> None:
    rows = np.arange(20)
    assert np.array_equal(_partners(few, replace(recipe, neighbour=0.0), rows, generator_of(0)), few.twins)
    always = _partners(few, replace(recipe, neighbour=1.0, nearest=2), rows, generator_of(0))
    assert ((always[:, None] == few.neighbours[:, :2]).any(axis=1)).all()
    distance = np.linalg.norm(few.features[:, None] - few.features[None], axis=2) + 1e9 * np.eye(20)
    assert np.array_equal(few.neighbours[:, 0], distance.argmin(axis=1))


def test_views_keep_the_nucleus_and_differ_mildly() -> None:
    """Dark pixels of the middle, the nucleus, stay in the picture at every zoom and shift."""
    side = material.SIDE
    across = torch.arange(side) - (side - 1) / 2
    radius = 0.3 * side / BEYOND  # of a nucleus that fills six tenths of the window
    disc = (across[:, None] ** 2 + across[None] ** 2).sqrt() < radius
    image = (1.0 - 0.8 * disc.float()).expand(16, 3, -1, -1).contiguous()
    views = Views()
    drawn = views.draw_zoom(1000, torch.Generator().manual_seed(0)) / views.beyond
    assert 1 / views.zoom <= drawn.min() < 0.85 and 1.2 < drawn.max() <= views.zoom
    for magnified in (1 / views.zoom, views.zoom):
        zoom = torch.full((16,), views.beyond * magnified)
        seen = views(image, zoom, torch.Generator().manual_seed(0)) * 0.2 + 0.7
        share = (seen.mean(1) < 0.6).float().mean((1, 2))
        wanted = math.pi * (0.3 * magnified) ** 2
        assert (share > 0.75 * wanted).all() and (share < 1.35 * wanted).all()
    again = views(image, zoom, torch.Generator().manual_seed(0)) * 0.2 + 0.7
    assert torch.equal(seen, again)
    other = views(image, zoom, torch.Generator().manual_seed(1)) * 0.2 + 0.7
    assert 0.003 < float((seen - other).abs().mean()) < 0.3


def test_simulated_laboratories_are_fixed_and_differ() -> None:
    field = draw(3)[0]
    seen = np.stack([shifted(field, site) for site in range(SITES)]).astype(float)
    assert np.array_equal(seen[1], shifted(field, 1)) and seen.shape[1:] == field.shape
    apart = [np.abs(seen[a] - seen[b]).mean() for a in range(SITES) for b in range(a)]
    assert min(apart) > 3 and np.abs(seen - field).mean(axis=(1, 2, 3)).min() > 3


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
