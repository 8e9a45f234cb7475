"""Whole fields: true boxes and masks, objects apart, scores that tempt but do not separate, crops at the border."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from cytolib.data.phantoms import CLASSES, DOMAINS, HELD_OUT, Conditions, PhantomField, crop_objects, detections, field
from cytolib.data.phantoms.detector import crowded
from cytolib.data.stain import estimate_background

N_FIELDS = 24


@pytest.fixture(scope="module")
def fields() -> list[PhantomField]:
    return [field(DOMAINS[k % 3], k) for k in range(N_FIELDS)]


@pytest.fixture(scope="module")
def objects(fields: list[PhantomField]) -> pd.DataFrame:
    return pd.concat([drawn.objects.assign(field=k) for k, drawn in enumerate(fields)], ignore_index=True)


def test_boxes_are_tight_around_the_instances(fields: list[PhantomField]) -> None:
    for drawn in fields:
        assert drawn.image.shape == (768, 1024, 3) and drawn.image.dtype == np.uint8
        assert drawn.instances.shape == (768, 1024) and drawn.instances.dtype == np.uint16
        assert 20 <= len(drawn.objects) <= 60
        assert drawn.objects["object_id"].tolist() == list(range(1, len(drawn.objects) + 1))
        assert set(np.unique(drawn.instances)) == {0, *drawn.objects["object_id"]}
        for row in drawn.objects.itertuples():
            y, x = np.nonzero(drawn.instances == row.object_id)
            assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (row.x0, row.y0, row.x1, row.y1)
            assert row.truncated == (x.min() == 0 or y.min() == 0 or x.max() == 1023 or y.max() == 767)


def test_objects_are_darker_than_the_glass_and_of_the_right_size(fields: list[PhantomField]) -> None:
    for drawn in fields:
        glass = estimate_background(drawn.image)[1]
        for row in drawn.objects.itertuples():
            inside = drawn.instances == row.object_id
            assert drawn.image[..., 1][inside].mean() < glass - 12, row
            wide = 2 * np.sqrt(inside.sum() / np.pi) * row.um_per_px
            if row.kind == "cell" and not row.truncated and row.cluster == 0:
                assert (1.5 < wide < 8) if row.label == "platelet" else (6 < wide < 22), row


def test_objects_lie_apart_but_for_doublets(fields: list[PhantomField]) -> None:
    n_doublets = 0
    for drawn in fields:
        grown = ndimage.grey_dilation(drawn.instances, size=(3, 3))
        border = (grown != drawn.instances) & (drawn.instances > 0)
        touching = set(zip(drawn.instances[border].tolist(), grown[border].tolist(), strict=True))
        cluster = drawn.objects.set_index("object_id")["cluster"]
        for a, b in touching:
            assert cluster[a] == cluster[b] != 0
        for _, pair in drawn.objects[drawn.objects["cluster"] > 0].groupby("cluster"):
            assert len(pair) == 2 and set(pair["kind"]) == {"cell"}
            near = ndimage.distance_transform_edt(drawn.instances != pair["object_id"].iloc[0])
            assert near[drawn.instances == pair["object_id"].iloc[1]].min() * drawn.um_per_px < 1.5  # they touch
            n_doublets += 1
    assert n_doublets > 10


def test_every_kind_and_class_occurs(objects: pd.DataFrame) -> None:
    shares = objects["kind"].value_counts(normalize=True)
    assert set(shares.index) == {"cell", "smudge", "clot", "debris"} and shares["cell"] > 0.6 and shares.min() > 0.03
    assert (objects.loc[objects["kind"] != "cell", "label"] == "").all()
    labels = objects.loc[objects["kind"] == "cell", "label"]
    assert set(labels) <= {*CLASSES, HELD_OUT} and len(set(labels)) >= 8
    assert labels.value_counts().idxmax() == "neutrophil"
    assert 0.03 < objects["truncated"].mean() < 0.25
    assert objects["focus_blur_um"].between(0.19, 1.5).all() and objects["focus_blur_um"].std() > 0.03


def test_white_cells_are_rare_among_red_ones(fields: list[PhantomField]) -> None:
    ratio = [len(drawn.red_cells) / (drawn.objects["kind"] == "cell").sum() for drawn in fields]
    assert np.median(ratio) > 15
    # No red cell's middle lies in a white cell, and most lie on something stained.
    for drawn in fields[:6]:
        x, y = np.rint(drawn.red_cells[:, :2]).astype(int).T
        inside = (x >= 0) & (x < 1024) & (y >= 0) & (y < 768)
        under = drawn.instances[y[inside], x[inside]]
        kind = drawn.objects.set_index("object_id")["kind"]
        assert (kind.reindex(under[under > 0]) == "debris").mean() > 0.8 or (under > 0).mean() < 0.005


def test_scores_tempt_but_do_not_separate(objects: pd.DataFrame) -> None:
    is_cell = objects["kind"] == "cell"
    area = roc_auc_score(is_cell, objects["score"])
    print(f"area under the curve of the detector's score, cells against artefacts: {area:.3f}")
    assert 0.80 < area < 0.97
    assert objects.loc[is_cell, "score"].median() > 0.75
    assert (objects.loc[~is_cell, "score"] > 0.7).sum() > 5 and (objects.loc[is_cell, "score"] < 0.5).sum() > 5
    cells = objects[is_cell & (objects["label"] != "platelet")]
    assert cells.loc[cells["truncated"], "score"].mean() < cells.loc[~cells["truncated"], "score"].mean() - 0.03
    assert np.corrcoef(cells["focus_blur_um"], cells["score"])[0, 1] < -0.1
    two = pd.DataFrame({"x0": [0, 11, 40], "y0": [0, 0, 0], "x1": [10, 20, 50], "y1": [9, 9, 9], "um_per_px": 0.3})
    assert crowded(two).tolist() == [True, True, False]


def test_detections_jitter_miss_and_imagine(fields: list[PhantomField]) -> None:
    found, missed, false = [], 0, 0
    for k, drawn in enumerate(fields):
        table = detections(drawn, k)
        assert list(table) == ["object_id", "x0", "y0", "x1", "y1", "score"] and table["score"].is_monotonic_decreasing
        assert (table[["x0", "y0"]].to_numpy() >= 0).all() and table["x1"].max() <= 1024 and table["y1"].max() <= 768
        true = table[table["object_id"] > 0].merge(drawn.objects, on="object_id", suffixes=("", "_true"))
        assert true["object_id"].is_unique
        missed += len(drawn.objects) - len(true)
        false += int((table["object_id"] == 0).sum())
        across = np.minimum(true["x1"], true["x1_true"]) - np.maximum(true["x0"], true["x0_true"])
        down = np.minimum(true["y1"], true["y1_true"]) - np.maximum(true["y0"], true["y0_true"])
        areas = [(true["x1" + s] - true["x0" + s]) * (true["y1" + s] - true["y0" + s]) for s in ("", "_true")]
        found.append(across * down / (areas[0] + areas[1] - across * down))
    overlap = pd.concat(found)
    assert 0.7 < overlap.mean() < 0.98 and missed > 10 and false > 10
    exact = detections(fields[0], 0, jitter=0.0, false_alarms=0.0).merge(fields[0].objects, on="object_id")
    assert (exact["x0_x"] == exact["x0_y"]).all() and len(exact) > 0
    pd.testing.assert_frame_equal(detections(fields[0], 5), detections(fields[0], 5))


def test_a_field_is_a_pure_function_of_its_arguments() -> None:
    one, other = (field("site_c", 77, n_objects=12, size=(300, 420)) for _ in range(2))
    assert (one.image == other.image).all() and (one.instances == other.instances).all()
    pd.testing.assert_frame_equal(one.objects, other.objects)
    assert len(one.objects) == 12 and one.image.shape == (300, 420, 3)
    assert (field("site_c", 78, n_objects=12, size=(300, 420)).image != one.image).any()
    empty = field("site_a", 0, n_objects=0, size=(256, 256))
    assert empty.objects.empty and not empty.instances.any() and len(detections(empty, 0, false_alarms=0)) == 0
    assert crop_objects(empty, 30.0).shape[0] == 0
    blasts = field("site_b", 3, n_objects=20, held_out_share=1.0).objects
    assert set(blasts.loc[blasts["kind"] == "cell", "label"]) == {HELD_OUT}
    wide, tall = (field("site_b", 3, n_objects=6, size=size) for size in ((256, 700), (700, 256)))
    assert wide.image.shape == (256, 700, 3) and tall.instances.shape == (700, 256)


def test_conditions_and_the_tilted_focal_plane() -> None:
    sharp, soft = (field("site_a", 5, conditions=Conditions(defocus_um=d)) for d in (0.0, 1.0))
    assert sharp.objects["focus_blur_um"].nunique() == 1
    assert (sharp.instances == soft.instances).all()
    detail = [np.abs(np.diff(drawn.image[..., 1].astype(float), axis=0)).mean() for drawn in (sharp, soft)]
    assert detail[0] > 1.5 * detail[1]
    assert soft.objects["score"].mean() < sharp.objects["score"].mean() - 0.1
    # A set defocus of 0.2 um lies between two blurs: the picture is between theirs in sharpness too.
    steps = [field("site_a", 5, conditions=Conditions(defocus_um=d, noise=0)).image for d in (0.0, 0.2, 0.45)]
    levels = [np.abs(np.diff(image[..., 1].astype(float), axis=0)).mean() for image in steps]
    assert levels[0] > levels[1] > levels[2]


def test_crops_are_centred_and_padded_at_the_border(fields: list[PhantomField]) -> None:
    drawn = fields[0]
    crops = crop_objects(drawn, 36.0)
    side = round(36.0 / drawn.um_per_px)
    assert crops.shape == (len(drawn.objects), side, side, 3) and crops.dtype == np.uint8
    glass = np.rint(estimate_background(drawn.image))
    n_padded = 0
    for crop, row in zip(crops, drawn.objects.itertuples(), strict=True):
        left, top = (round((a + b) / 2 - side / 2) for a, b in ((row.x0, row.x1), (row.y0, row.y1)))
        inside = drawn.image[max(top, 0) : top + side, max(left, 0) : left + side]
        down, across = max(-top, 0), max(-left, 0)
        assert (crop[down : down + inside.shape[0], across : across + inside.shape[1]] == inside).all()
        if top < 0:
            assert (crop[0] == glass).all()
            n_padded += 1
    assert n_padded > 0
    boxes = detections(drawn, 0)
    assert len(crop_objects(drawn, 36.0, boxes)) == len(boxes)


def test_fast_enough_to_be_drawn_anew() -> None:
    field("site_a", 1000)
    start = time.process_time()
    for k in range(4):
        field(DOMAINS[k % 3], 1001 + k)
    seconds = (time.process_time() - start) / 4
    print(f"field of 768 x 1024: {seconds:.2f} s of one core")
    assert seconds < 0.8


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"domain": "site_z", "seed": 0}, ValueError, "site_z"),
        ({"domain": "site_a", "seed": -1}, ValueError, "seed is -1"),
        ({"domain": "site_a", "seed": 0, "n_objects": 2.5}, TypeError, "n_objects is 2.5"),
        ({"domain": "site_a", "seed": 0, "size": (100, 1024)}, ValueError, "size is .*256 to 4096"),
        ({"domain": "site_a", "seed": 0, "size": (512.0, 512.0)}, TypeError, "whole pixels"),
        ({"domain": "site_a", "seed": 0, "held_out_share": 2}, ValueError, "held_out_share is 2"),
        ({"domain": "site_a", "seed": 0, "um_per_px": 0.01}, ValueError, "um_per_px is 0.01"),
        ({"domain": "site_a", "seed": 0, "n_objects": 400, "size": (256, 256)}, ValueError, "n_objects is 400.*room"),
    ],
)
def test_field_refuses(arguments: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        field(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size_um", [0.1, 4000.0, float("nan")])
def test_crop_refuses(size_um: float) -> None:
    with pytest.raises(ValueError, match="size_um is"):
        crop_objects(field("site_a", 0, n_objects=3, size=(256, 256)), size_um)
