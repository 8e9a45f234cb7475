"""The paper's figures from stored tables: without torch, readable in print, equal to what is published."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

matplotlib.use("Agg")

from cytolib.figures import redraw, style  # noqa: E402
from cytolib.figures.paper_figures import FIGURES, PaperTables, write_captions  # noqa: E402
from cytolib.figures.saving import DPI, save_figure, write_figure  # noqa: E402
from cytolib.run import Stage, root  # noqa: E402

REFERENCE = redraw.reference_root()
RUNS = [folder.name for folder in redraw.reference_runs()]
PRINT_WIDTH, SMALLEST = 7.0, 7.0  # inches, points

# What requirements-figures.lock installs, by the names one imports; all else is refused in the child below.
LIGHT = """matplotlib mpl_toolkits numpy pandas PIL pyarrow scipy seaborn contourpy cycler fontTools kiwisolver
packaging pyparsing dateutil tzdata six pylab _yaml cytolib""".split()
CHILD = f"""
import sys
class OnlyLight:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in {LIGHT} and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"refused: {{name}}")
sys.meta_path.insert(0, OnlyLight())
from cytolib.cli import main
sys.exit(main(sys.argv[1:]))
"""


@cache
def tables(run: str) -> PaperTables:
    return redraw.stored_tables(REFERENCE / run)


def drawn(run: str) -> dict[str, Figure]:
    """All figures of a published run, laid out."""
    style()
    found = {draw.__name__: draw(tables(run)).figure for draw in FIGURES}
    return {name: figure for name, figure in found.items() if figure is not None}


def test_every_published_figure_is_drawn_again_byte_by_byte_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, "figures", "--check", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root(), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (n_files,) = re.findall(r"compared with (\d+) published files: all equal, byte by byte", done.stdout)
    assert int(n_files) >= 2 * 25 and str(tmp_path) in done.stdout


def test_a_difference_is_named(tmp_path: Path) -> None:
    mine, published = tmp_path / "mine", tmp_path / "published"
    for folder in (mine, published):
        folder.mkdir()
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(b"same")
    files = sorted(published.iterdir())
    assert redraw.differences(sorted(mine.iterdir()), files) == []
    (mine / "a.png").write_bytes(b"else")
    (mine / "b.png").rename(mine / "c.png")
    assert redraw.differences(sorted(mine.iterdir()), files) == [
        "a.png: differs from the published one",
        "b.png: published, not drawn",
        "c.png: drawn, not published",
    ]


def words(figure: Figure) -> list[Text]:
    """Texts that are seen; labels of ticks beyond an axis' ends exist too, and are not."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    within = {id(label) for axis in axes for tick in axis._update_ticks() for label in (tick.label1, tick.label2)}
    beyond = {id(label) for axis in axes for label in axis.get_ticklabels(which="both")} - within
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and id(text) not in beyond]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("run", RUNS)
def test_type_is_seven_points_or_more_in_print_and_no_words_overlap(run: str) -> None:
    for name, figure in drawn(run).items():
        figure.set_dpi(DPI)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        width = figure.get_tightbbox(renderer).width
        shrunk = min(1.0, PRINT_WIDTH / width)
        boxes = []
        for text in words(figure):
            size = text.get_fontsize() * shrunk
            assert size >= SMALLEST, f"{run}, {name}: {text.get_text()!r} is {size:.1f} points in print"
            if not text.get_rotation() % 90:  # the boxes of slanted words are larger than they are
                boxes.append((text.get_text(), text.get_window_extent(renderer).expanded(0.98, 0.85)))
        for (first, a), (second, b) in combinations(boxes, 2):
            assert not a.overlaps(b), f"{run}, {name}: {first!r} lies on {second!r}"
        plt.close(figure)


@pytest.mark.parametrize("run", RUNS)
def test_captions_say_how_many_and_how_sure(run: str, tmp_path: Path) -> None:
    captions = {draw.__name__: draw(tables(run)).caption for draw in FIGURES}
    plt.close("all")
    for name, caption in captions.items():
        if caption.startswith("Not drawn"):
            continue
        assert re.search(r"n = [\d,]+", caption), name
        assert re.search(r"95 %|no interval|Without intervals|Intervals over", caption), name
    write_captions(run, captions, tmp_path / "captions.md")
    text = (tmp_path / "captions.md").read_text(encoding="utf-8")
    assert f"`make figures RUN={run}`" in text and "**Figure 12** (`figure_12_held_out`)" in text


def test_what_a_run_does_not_have_is_said_and_not_drawn(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    shutil.copytree(REFERENCE / "default", run, ignore=shutil.ignore_patterns("*.ipynb", "*.png", "*.pdf"))
    (run / "03_sample" / "attribute_frequencies.parquet").unlink()
    kept = next(draw for draw in FIGURES if draw.__name__ == "figure_11_attributes_kept")
    figure, caption = kept(redraw.stored_tables(run))
    assert figure is None and "nothing is known of these cells" in caption
    (run / "03_sample" / "membership.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"03_sample/membership.parquet: no such table; run stage 03_sample"):
        redraw.stored_tables(run)


def test_the_metric_of_the_run_is_drawn(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    shutil.copytree(REFERENCE / "default", run, ignore=shutil.ignore_patterns("*.ipynb", "*.png", "*.pdf"))
    described = (run / "run.json").read_text()
    (run / "run.json").write_text(described.replace('"metric": "balanced_accuracy"', '"metric": "macro_f1"'))
    found = redraw.stored_tables(run)
    assert (found.run, found.metric, tables("default").metric) == ("mine", "macro_f1", "balanced_accuracy")


def test_ones_own_run_comes_before_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    assert redraw.find_run("default") == REFERENCE / "default"
    (tmp_path / "default" / "00_data").mkdir(parents=True)
    assert redraw.find_run("default") == tmp_path / "default"
    for name in ("absent", "../reference", "."):
        with pytest.raises(ValueError, match=f"--run {re.escape(name)}: no such run"):
            redraw.find_run(name)


def test_neither_settings_nor_dates_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(folder: Path) -> list[bytes]:
        style()
        figure, ax = plt.subplots()
        ax.plot([0, 1], [1, 0])
        ax.set_title("a title")
        paths = save_figure(figure, folder, "line")
        plt.close(figure)
        assert [path.name for path in paths] == ["line.png", "line.pdf"]
        return [path.read_bytes() for path in paths]

    first = line(tmp_path / "a")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "999999999")
    with matplotlib.rc_context({"font.family": "serif", "axes.xmargin": 0.3, "savefig.dpi": 40, "pdf.fonttype": 3}):
        assert line(tmp_path / "b") == first


def test_a_stage_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLIB_RUNS", str(tmp_path))
    style()
    figure, _ = plt.subplots()
    stage = Stage("drawing")
    stage.save_figure(figure, "empty")
    for path in save_figure(figure, tmp_path / "alone", "empty"):
        assert path.read_bytes() == (stage.folder / "figures" / path.name).read_bytes()
    plt.close(figure)
    with pytest.raises(ValueError, match=r"ends in .png or .pdf, found '.svg'"):
        write_figure(figure, tmp_path / "line.svg")


def test_held_out_domains_are_panels(tmp_path: Path) -> None:
    """Two held-out domains: two panels over the same methods."""
    found = tables("pbc").results
    other = found[(found["split"] == "held_out") & (found["experiment"] == "augment")].assign(domain="elsewhere")
    figure = redraw.paper.held_out_figure(pd.concat([found, other], ignore_index=True))
    left, right = figure.axes
    assert [ax.get_title(loc="left").split(":")[0] for ax in (left, right)] == ["elsewhere", "pbc lilac"]
    assert [text.get_text() for text in left.get_yticklabels()][0] == "real"
    plt.close(figure)
