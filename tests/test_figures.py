"""Figures: drawn from small tables, the same bytes twice, colours that stay, a synthetic table that survives disk."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

matplotlib.use("Agg")

from cytolib import figures, synthetic  # noqa: E402
from cytolib.data.taxonomy import CLASSES  # noqa: E402
from cytolib.evaluate.results import result_rows  # noqa: E402
from cytolib.figures import paper  # noqa: E402


@pytest.fixture(autouse=True)
def style() -> None:
    figures.style()


def png(figure: Figure) -> bytes:
    """The figure's PNG, without its date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def arms() -> pd.DataFrame:
    """Result rows of three methods over all seeds, as the sweep writes them."""
    rows = []
    for shift, method in enumerate(("real", "diffusion_only", "shuffled_labels")):
        value = 0.9 - 0.01 * shift
        ends = {f"{m}{e}": value + d for m in ("balanced_accuracy", "macro_f1", "accuracy")
                for e, d in (("", 0.0), ("[low]", -0.02), ("[high]", 0.02))}  # fmt: skip
        less = {
            f"balanced_accuracy_minus_real{e}": d - 0.01 * shift for e, d in (("", 0), ("[low]", -1), ("[high]", 1))
        }
        recalls = {f"recall[{name}]": value for name in CLASSES[:3]}
        shared = dict(experiment="augment", dataset="toy", encoder="none", method=method, split="test", n=40)
        rows.append(result_rows({**ends, **less, **recalls, "dcr_ratio": 1.1}, **shared))
    return pd.concat(rows, ignore_index=True)


def test_every_class_has_a_colour_of_its_own() -> None:
    assert len({figures.class_colour(name) for name in CLASSES}) == len(CLASSES)
    assert figures.domain_colours(["b", "a"]) == figures.domain_colours(["a", "b", "a"])
    with pytest.raises(ValueError, match="9 domains"):
        figures.domain_colours([f"site {k}" for k in range(9)])


def test_same_table_same_bytes() -> None:
    assert png(paper.classifier_figure(arms())) == png(paper.classifier_figure(arms()))


def test_classifier_table_and_key_results_hold_the_numbers() -> None:
    table = paper.classifier_table(arms()).set_index("method")
    assert table.loc["diffusion_only", "balanced_accuracy"] == pytest.approx(0.89)
    assert table.loc["diffusion_only", "macro_f1[low]"] == pytest.approx(0.87)
    key = paper.key_results(arms()).set_index("what")
    row = key.loc["trained on diffusion cells only: balanced accuracy minus that of real cells"]
    assert (row["value"], row["low"], row["n"]) == (pytest.approx(-0.01), pytest.approx(-1.01), 40)


def test_saving_does_not_move_the_pictures() -> None:
    """matplotlib may lay a figure out anew when it is saved: not one that was made without layout."""
    image = np.zeros((8, 8, 3), np.uint8)
    figure = figures.cell_rows([("monocyte", [image] * 5)], rest="a title that is much wider than one of the pictures")
    before = [ax.get_position().bounds for ax in figure.axes]
    png(figure)
    png(figure)
    assert [ax.get_position().bounds for ax in figure.axes] == before


def test_pictures_on_the_map_do_not_overlap() -> None:
    points = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 2)), columns=["x", "y"])
    chosen = points.iloc[figures.spread(points, side=0.05)].to_numpy()
    apart = 0.05 * np.ptp(points.to_numpy(), axis=0).max()
    gaps = np.abs(chosen[:, None] - chosen[None]).max(axis=2) + np.eye(len(chosen)) * 9
    assert 20 < len(chosen) < 400 and gaps.min() >= apart


def test_synthetic_table_round_trip(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    names, seeds = np.array(["monocyte", "monocyte", "platelet", "platelet"]), np.arange(4)
    drawn = type("Drawn", (), {"embeddings": X, "class_labels": names, "domain_labels": None, "seeds": seeds})()
    cells, vectors = synthetic.synthetic_table(drawn, num_inference_steps=18, guidance_scale=1.0)
    for name in ("a", "b"):
        synthetic.write_synthetic(cells, vectors, tmp_path / f"{name}.parquet", {"encoder": "toy"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back, again = synthetic.read_synthetic(tmp_path / "a.parquet")
    np.testing.assert_array_equal(again, X)
    assert back["synthetic_id"].tolist() == ["monocyte-0", "monocyte-1", "platelet-2", "platelet-3"]
    with pytest.raises(ValueError, match="not finite"):
        synthetic.write_synthetic(cells, vectors * np.nan, tmp_path / "c.parquet", {})
    with pytest.raises(FileNotFoundError, match="03_sample writes it"):
        synthetic.read_synthetic(tmp_path / "none.parquet")


def test_pictures_of_one_scale_show_cells_in_their_sizes(tmp_path: Path) -> None:
    """The same disc of 8 um on frames of two widths looks alike at one field of view, and not without."""
    paths = []
    for name, side in (("wide", 120), ("tight", 60)):
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        disc = np.where(np.hypot(x, y) <= 20, 30, 220).astype(np.uint8)  # 0.2 um a pixel
        Image.fromarray(np.stack([disc] * 3, -1)).save(tmp_path / f"{name}.png")
        paths.append(f"{name}.png")
    cells = pd.DataFrame({"path": paths, "um_per_px": [0.2, 0.2]})
    dark = [(image < 128).mean() for image in figures.read_images(cells, tmp_path, 64, field_of_view_um=12)]
    assert dark[0] == pytest.approx(dark[1], rel=0.05)
    whole = [(image < 128).mean() for image in figures.read_images(cells, tmp_path, 64)]
    assert whole[1] > 3 * whole[0]
    unknown = figures.read_images(cells.assign(um_per_px=[None, 0.2]), tmp_path, 64, field_of_view_um=12)
    assert (unknown[0] < 128).mean() == pytest.approx(whole[0], rel=0.05)  # no scale: the whole picture


def test_figures_of_the_tour() -> None:
    image, mask = np.full((32, 32, 3), 200, np.uint8), np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    mask[12:20, 12:20] = 2
    outlined = figures.outlined_cells([image] * 2, [mask, 0 * mask], ["a cell", "none"])
    assert len(outlined.axes[2].collections) == 2 and not outlined.axes[3].collections
    path = figures.ambiguous_path([image] * 3, [0, 0.5, 1], [0.0, 0.4, 1.0], "lymphocyte", "monocyte")
    assert path.axes[-1].lines[0].get_ydata().tolist() == [0.0, 0.4, 1.0]
    objects = pd.DataFrame(
        {"kind": ["cell", "smudge"], "label": ["monocyte", ""], "x0": [2, 9], "y0": [2, 9], "x1": [8, 20],
         "y1": [8, 20], "score": [0.9, 0.3]}
    )  # fmt: skip
    field = figures.field_boxes(image, objects).axes[0]
    assert [text.get_text() for text in field.texts] == ["monocyte 0.90", "smudge 0.30"]
    assert [patch.get_linestyle() for patch in field.patches] == ["-", "--"]
    skills = pd.DataFrame(
        {"attribute": ["cell_diameter_um", "domain"], "kind": ["number", "category"], "skill": [0.9, 0.5],
         "low": [0.8, 0.4], "high": [0.95, 0.6], "shuffled": [0.0, 0.01], "n": [50, 50]}
    )  # fmt: skip
    ax = figures.what_vectors_know(skills).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cell diameter, µm", "domain"]
    scores = pd.DataFrame({"stage": [0, 0, 1], "score": [0.1, 0.2, 0.8]})
    assert len(figures.along_maturity(scores, ("myeloblast", "promyelocyte", "myelocyte")).axes[0].get_xticks()) == 3
