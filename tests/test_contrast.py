"""The small learner of notebook 01: its loss is the published one, it learns, and gives the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cytolib import contrast
from cytolib.data import phantoms


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    folder, paths = tmp_path_factory.mktemp("cells"), []
    for k in range(24):
        label = phantoms.CLASSES[k % len(phantoms.CLASSES)]
        paths.append(folder / f"{k}.png")
        Image.fromarray(phantoms.draw_cell(label, "site_a", seed=k, size=96).image).save(paths[-1])
    return contrast.wide_windows(paths, 64)


def test_the_loss_is_that_of_the_paper() -> None:
    """Against equation 1 of Chen et al. 2020, term by term."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6, 4))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    likeness = np.exp(unit @ unit.T / 0.5)
    terms = []
    for i in range(6):
        j = (i + 3) % 6
        terms.append(-np.log(likeness[i, j] / sum(likeness[i, k] for k in range(6) if k != i)))
    found = contrast.contrastive_loss(torch.tensor(z[:3]), torch.tensor(z[3:]), 0.5)
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-9)


def test_it_learns_and_repeats(images: NDArray[np.uint8]) -> None:
    state = torch.get_rng_state()
    network, history = contrast.learn(images, epochs=10, size=48, progress=False)
    assert torch.equal(state, torch.get_rng_state())  # and leaves the caller's generator alone
    assert history["loss"].tail(3).mean() < history["loss"].head(3).mean() - 0.5
    again, same = contrast.learn(images, epochs=10, size=48, progress=False)
    assert same.equals(history)
    found = contrast.embedded(network, images, 48)
    assert np.array_equal(found, contrast.embedded(again, images, 48))
    assert found.shape[0] == 24 and not np.allclose(found, contrast.embedded(contrast.untrained(), images, 48))


def test_two_views_of_a_cell_come_nearer_than_two_cells(images: NDArray[np.uint8]) -> None:
    network, _ = contrast.learn(images, epochs=30, size=48, progress=False)
    views = contrast.draw_views(images, 2, seed=9, size=64)
    assert views.shape == (24, 2, 64, 64, 3) and views.dtype == np.uint8
    assert _nearness(network, views) < 0.8 * _nearness(contrast.untrained(), views)


def _nearness(network: nn.Module, views: NDArray[np.uint8]) -> float:
    """Squared distance between the directions of two views of a cell, over that of two cells."""
    one, other = (contrast.embedded(network, views[:, k], 48) for k in range(2))
    one, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other))
    return float(((one - other) ** 2).sum() / ((one - np.roll(other, 1, axis=0)) ** 2).sum())


def test_one_image_is_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="there are 1 images; expected two or more"):
        contrast.learn(images[:1])
