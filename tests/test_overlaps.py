"""Overlapping frames: the same piece of slide is found wherever the frame was moved, and nothing else is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cytolib.data.overlaps import COLUMNS, overlapping_frames


def slide(seed: int, side: int = 300) -> np.ndarray:
    """A smooth grey picture with detail of cells' size and finer."""
    rng = np.random.default_rng(seed)
    picture = sum(
        weight * ndimage.gaussian_filter(rng.standard_normal((side, side)), width) * width
        for width, weight in ((1.0, 60.0), (8.0, 300.0))
    )
    return np.clip(150 + picture, 0, 255).astype(np.uint8)


def jpeg(frame: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


def cut(picture: np.ndarray, top: int, left: int, side: int = 96) -> np.ndarray:
    return jpeg(picture[top : top + side, left : left + side])


@pytest.mark.parametrize("move", [(0, 32), (32, 0), (-20, 44), (13, -7), (0, 0)])
def test_a_moved_frame_is_found_with_its_move(move: tuple[int, int]) -> None:
    picture = slide(0)
    frames = [cut(picture, 100, 100), cut(picture, 100 - move[0], 100 - move[1])]
    found = overlapping_frames(frames)
    assert list(found.columns) == list(COLUMNS) and len(found) == 1
    assert abs(found["dy"][0] - move[0]) <= 1 and abs(found["dx"][0] - move[1]) <= 1
    assert found["correlation"][0] > 0.65


def test_other_slides_are_no_overlap_and_neither_is_a_corner() -> None:
    picture = slide(0)
    frames = [cut(picture, 100, 100), cut(picture, 170, 170), *(cut(slide(seed), 100, 100) for seed in range(1, 12))]
    assert overlapping_frames(frames).empty  # the first two share 7 % of a frame


def test_round_cells_of_one_kind_are_no_overlap() -> None:
    """Two dark discs in the middle look alike coarsely; their fine detail differs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] - 48
    disc = ndimage.gaussian_filter((y**2 + x**2 < 24**2).astype(float), 2)
    frames = [
        np.clip(200 - 120 * disc + 25 * ndimage.gaussian_filter(rng.standard_normal((96, 96)), 1), 0, 255)
        for _ in range(6)
    ]
    assert overlapping_frames([jpeg(frame.astype(np.uint8)) for frame in frames]).empty


def test_frames_of_two_sizes_and_an_empty_one() -> None:
    picture = slide(0)
    frames = [cut(picture, 100, 100, 144), np.full((96, 96), 200, np.uint8), cut(picture, 120, 130, 96)]
    found = overlapping_frames(frames)
    assert found[["first", "second"]].to_numpy().tolist() == [[0, 2]]
    assert (found["dy"][0], found["dx"][0]) == (-20, -30)


def test_one_frame_has_no_pair() -> None:
    assert overlapping_frames([cut(slide(0), 0, 0)]).empty


def test_choi_frames_known_to_overlap(real_data) -> None:  # noqa: ANN001
    folder = real_data / "choi_bone_marrow"
    names = ["9/16", "9/21", "8/2", "8/3", "9/38"]
    frames = [np.asarray(Image.open(folder / f"{name}.jpg").convert("L")) for name in names]
    found = overlapping_frames(frames)
    pairs = {frozenset((names[a], names[b])) for a, b in zip(found["first"], found["second"], strict=True)}
    assert {frozenset(("9/16", "9/21")), frozenset(("8/2", "8/3"))} == pairs


@pytest.mark.parametrize("frames", [[], [np.zeros((96, 96, 3), np.uint8)], [np.zeros((8, 96), np.uint8)]])
def test_what_is_no_frame_is_refused(frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="expected greys") as error:
        overlapping_frames(frames)
    assert "\n" not in str(error.value)
