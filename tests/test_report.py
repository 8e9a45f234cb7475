"""The report of a run: what it shows and says, that every link leads somewhere, and that no text becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cytolib.run.config import read_config
from cytolib.run.report import write_report
from cytolib.run.report.forest import forest_groups
from cytolib.run.report.gallery import words
from cytolib.run.report.notebook_text import Passage, blocks, saved_figures
from cytolib.run.report.page import duration, moment
from cytolib.run.report.rendering import template_text
from cytolib.run.report.tables import read_head, show
from tests.report_runs import FIGURE, HOSTILE, Run, make_run, write_manifest

VOID = {"meta", "img", "br", "line", "circle", "path", "link", "base", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and the text outside of style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def all(self, attribute: str) -> list[str]:
        """Values of an attribute wherever it stands."""
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def broken_links(self) -> list[str]:
        """Links that lead nowhere: a file that is not there, an id that no element has."""
        bad = []
        for link in self.all("href") + self.all("src"):
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            target = self.path if not parts.path else (self.path.parent / unquote(parts.path)).resolve()
            if parts.scheme or parts.netloc or not target.is_file():
                bad.append(link)
            elif parts.fragment and parts.fragment not in Page(target).all("id"):
                bad.append(link)
        return bad


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def report(run: Run, *verified: str) -> Page:
    """The report, with ``verified`` (every stage, for none) as the stages that were verified just now."""
    return Page(write_report(run.folder, verified or tuple(run.parameters), run.parameters, run.chain))


def pages(run: Run) -> list[Page]:
    return [report(run), *(Page(run.folder / name / f"{name}.html") for name in run.parameters)]


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(run: Run) -> None:
    for page in pages(run):
        assert page.broken_links() == [], page.path
        ids = page.all("id")
        assert len(ids) == len(set(ids)), page.path
        policy = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
        assert len(policy) == 1 and policy[0].startswith("default-src 'none';") and "script-src" not in policy[0]
    index = report(run)
    assert f"00_data/figures/{FIGURE}.png" in [unquote(link) for link in index.all("src")]
    assert "../index.html" in Page(run.folder / "01_embed" / "01_embed.html").all("href")


def test_a_broken_link_would_be_seen(run: Run) -> None:
    index = report(run)
    (run.folder / "00_data" / "log.txt").unlink()
    assert index.broken_links() == ["00_data/log.txt"]


def test_texts_are_never_markup(run: Run) -> None:
    index = report(run)
    assert not [tag for tag, _ in index.elements if tag in ("script", "base", "iframe", "form")]
    assert not [name for _, attributes in index.elements for name in attributes if name.startswith("on")]
    # column, cell, device, parameter, help and key result are shown as they are
    assert index.text.count(HOSTILE) >= 10
    for name in run.parameters:  # a notebook's output may hold markup, but none that acts on the page
        page = Page(run.folder / name / f"{name}.html")
        found = [
            tag
            for tag, attributes in page.elements
            if tag in ("base", "link") or attributes.get("content", "")[:2] == "0;"
        ]
        assert found == [] and f"label {HOSTILE}" in page.text


def test_headings_pictures_and_tables_can_be_read_aloud(run: Run) -> None:
    for page in pages(run):
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
        pictures = [attributes for tag, attributes in page.elements if tag == "img"]
        assert pictures and all(attributes.get("alt") for attributes in pictures)
        plots = [attributes for tag, attributes in page.elements if tag == "svg"]
        assert all(a.get("aria-label") or a.get("aria-hidden") for a in plots)
        assert ("html", {"lang": "en"}) in page.elements and "#main" in page.all("href")


def test_the_same_run_gives_the_same_bytes_and_nothing_is_written_twice(run: Run) -> None:
    report(run)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.folder.rglob("*.html")}
    assert len(files) == 4
    report(run)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == files
    for path in files:
        path.unlink()
    report(run)
    assert {path: path.read_bytes() for path in run.folder.rglob("*.html")} == {p: b for p, (b, _) in files.items()}
    assert [path.name for path in run.folder.rglob(".*") if path.is_file()] == []


def test_only_a_changed_notebook_is_converted_again(run: Run) -> None:
    report(run)
    before = {path: path.stat().st_mtime_ns for path in run.folder.glob("*/*.html")}
    source = run.folder / "01_embed" / "01_embed.ipynb"
    source.write_text(source.read_text().replace("Which cells", "Which other cells"))
    write_manifest(run, "01_embed")
    index = report(run)
    changed = [path.name for path in before if path.stat().st_mtime_ns != before[path]]
    assert changed == ["01_embed.html"] and "Which other cells are there?" in index.text


def test_what_is_not_verified_is_said_and_not_shown(run: Run) -> None:
    report(run)
    (run.folder / "01_embed" / "results.parquet").unlink()
    for path in (run.folder / "10_figures").iterdir():
        if path.is_file() and path.name != "log.txt":
            path.unlink()
    failure = f"stage 10_figures: ValueError: bad {HOSTILE}; see {run.folder}/10_figures/failed.ipynb"
    (run.folder / "10_figures" / ".failure.json").write_text(json.dumps({"message": failure, "time": 0}))
    failed = run.folder / "10_figures" / "failed.ipynb"
    failed.write_text((run.folder / "00_data" / "00_data.ipynb").read_text())
    page = report(run, "00_data")
    text = " ".join(page.text.split())
    assert "1 of 3 stages verified" in text and "Not so: 01_embed (stale), 10_figures (failed)" in text
    assert "output results.parquet is missing" in text
    assert f"stage 10_figures: ValueError: bad {HOSTILE}; see 10_figures/failed.ipynb" in text
    assert str(run.folder) not in page.path.read_text()
    assert not any(link.startswith(("01_embed/figures", "10_figures/figures")) for link in page.all("src"))
    assert "it is not among the verified stages" in text and "0.848" not in text
    assert page.broken_links() == []
    assert "This execution failed" in Page(run.folder / "10_figures" / "10_figures.html").text


def test_a_stage_that_was_not_asked_for_is_looked_at(run: Run) -> None:
    assert "All 3 stages verified" in report(run, "00_data").text
    run.parameters["10_figures"]["seed"] = 4
    text = " ".join(report(run, "00_data", "01_embed").text.split())
    assert "Not so: 10_figures (stale)" in text and "parameter seed" in text
    (run.folder / "10_figures" / "manifest.json").unlink()
    assert "10_figures (not run)" in " ".join(report(run, "00_data", "01_embed").text.split())
    # the project's own chain does not know the stage 10_figures by these parameters, nor a stage of another name
    other = {**run.parameters, "77_other": {}}
    page = Page(write_report(run.folder, ["00_data", "01_embed"], other, run.chain))
    assert "77_other (not run)" in " ".join(page.text.split())


def test_a_verified_stage_without_manifest_or_with_a_broken_notebook_is_an_error(run: Run) -> None:
    index = report(run).path.read_bytes()
    source = run.folder / "01_embed" / "01_embed.ipynb"
    source.write_text("{}")
    with pytest.raises(ValueError, match="01_embed.ipynb"):
        report(run)
    (run.folder / "00_data" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="00_data"):
        report(run)
    assert (run.folder / "index.html").read_bytes() == index


def test_captions_parameters_inputs_and_a_large_folder(run: Run) -> None:
    page = report(run)
    text = " ".join(page.text.split())
    assert text.index("Figure 1: the cells") < text.index("Figure 2: no words") < text.index("Figure 10: last")
    assert "How many there are, and where they come from." in text
    assert "00 · What cells?" in text and "Which cells are there?" in text
    assert "images/ (30 files; each is in the manifest" in text and "images/7.txt" not in text
    assert "first 8 of 40 rows" in text and text.count("python3.11.7") == 1
    assert "label (set)" in text and "seed (set)" not in text
    assert [tag for tag, attributes in page.elements if attributes.get("class") == "changed"] == ["tr", "tr"]
    page = Page(run.folder / "00_data" / "00_data.html")
    assert "42" in page.text and "\\n" not in page.text, "an output in several lines is one text"
    assert "never shown" not in page.text and "$x^2$" in page.text


def test_the_configuration_on_the_page_makes_the_same_run(run: Run, tmp_path: Path) -> None:
    page = report(run)
    link = next(link for link in page.all("href") if link.startswith("data:text/yaml"))
    path = tmp_path / "again.yaml"
    path.write_text(unquote(link.split(",", 1)[1]))
    config = read_config(path, run.chain)
    assert config.run == "toy" and config.parameters == run.parameters
    assert "label" in path.read_text() and "seed" not in path.read_text()
    assert f"git checkout {'a' * 40}\nmake pipeline CONFIG=toy.yaml" in page.text


def test_forest_groups_place_and_judge() -> None:
    def row(what: str, *values: str, n: str = "9") -> dict[str, str]:
        return dict(zip(("what", "value", "low", "high", "n", "where"), (what, *values, n, "s"), strict=True))

    rows = [
        row("a: balanced accuracy minus that of real cells", "0.06", "0.004", "0.13"),
        row("b: balanced accuracy", "0.9763", "0.9695", "0.9825"),
        row("c: balanced accuracy minus that of real cells", "-0.02", "-0.06", "0.015"),
        row("d: balanced accuracy minus that of real cells", "-0.4", "-0.5", "-0.3", n="3"),
        row("no colon at all", "1e+300", "", ""),
    ]
    differences, few, accuracy, unknown = forest_groups(rows)
    assert [group.n for group in (differences, few)] == ["9", "3"], "other cells have an axis of their own"
    first, second = differences.rows
    assert differences.reference is not None
    assert first.left is not None and first.dot is not None and first.right is not None
    assert differences.reference[1] < first.left < first.dot < first.right < 260
    assert (first.verdict, second.verdict, few.rows[0].verdict) == ("above 0", "interval holds 0", "below 0")
    assert (first.value, first.low, first.high) == ("0.060", "0.004", "0.130")
    assert accuracy.reference is None and accuracy.rows[0].value == "0.976" and "Higher is better" in accuracy.note
    assert unknown.rows[0].dot is None and unknown.rows[0].value == "1e+300" and unknown.note == ""
    (close,) = forest_groups([row("e: ratio", "1.056", "1.053", "1.06")])
    assert (close.rows[0].value, close.rows[0].high) == ("1.056", "1.060"), "no digit that was not read"
    texts = [float(text) for text, _ in differences.ticks]
    assert texts[0] <= -0.06 and texts[-1] >= 0.13 and len(set(texts)) == len(texts)
    for value in ("0", "5e-324", "1e-30", "-3", "1e99", "0.5"):  # one number alone has an axis, too
        (group,) = forest_groups([row("x: y", value, value, value)])
        assert group.rows[0].dot is not None and 0 <= group.rows[0].dot <= 260, value


def test_heads_of_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "e.parquet"
    vectors = pa.array([[0.12345, 1.0, 2.0, 3.0, 4.0]] * 50, pa.list_(pa.float32(), 5))
    pq.write_table(pa.table({"id": ["a" * 64] * 50, "x": vectors, "n": list(range(50))}), path)
    head = read_head(path)
    assert (head.n_rows, head.n_columns, len(head.rows), head.numeric) == (50, 3, 8, [False, False, True])
    assert head.rows[0][0].text == "aaaaaaaaaa…" and head.rows[0][0].full == "a" * 64
    assert head.rows[0][1].text == "[0.1235, 1, … 5 values]"
    csv = tmp_path / "t.csv"
    csv.write_text("a,b\n1,0.123456789\n2,\n")
    head = read_head(csv)
    assert (head.n_rows, head.numeric) == (2, [True, True]) and [c.text for c in head.rows[0]] == ["1", "0.1235"]
    csv.write_text(",".join(f"c{i}" for i in range(99)) + "\n")
    assert read_head(csv).n_columns == 99 and len(read_head(csv).columns) == 30
    for text in ("a,b\n1\n", "a\n\x00\ud800\n"):
        csv.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match="t.csv is not readable as csv"):
            read_head(csv)
    path.write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(ValueError, match="e.parquet is not readable as parquet"):
        read_head(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000123456, "0.0001235"), (12345.678, "12,346"), (float("nan"), ""), (None, ""), (1234567, "1,234,567"),
     (4127333275574138087, "4127333275574138087"), (True, "True"), (b"abc", "3 bytes"), ("x" * 200, "x" * 99 + "…")],
)  # fmt: skip
def test_values_are_short(value: object, text: str) -> None:
    assert show(value).text == text


def test_words_of_figures() -> None:
    assert saved_figures("%matplotlib inline\nstage.save_figure(a(b), f'maturity_{line}')") == ["maturity_.+"]
    assert saved_figures("stage.save_figure(figure=f, name='a.b')") == [r"a\.b"] and saved_figures("x = (") == []
    assert words("figure_3_generator", Passage("Figure 3: the generator", "")) == ("Figure 3: the generator", "")
    assert words("figure_5_recall", Passage("Figure 4: the classifiers", "So."))[0] == "Figure 5: recall"
    assert words("noise_levels", Passage("How much noise?", "")) == ("Noise levels", "How much noise?")
    assert blocks("## A *b*\ntext `c`\n\n* a list\n\n**Bold** text\n\n> quote") == [
        *((True, "A b"), (False, "text c"), (False, "Bold text")),
    ]  # fmt: skip
    assert [duration(s) for s in (0.04, 9.96, 75, 7500)] == ["0.0 s", "10 s", "1 min 15 s", "2 h 5 min"]
    assert moment("2026-01-31T09:15:00Z") == "2026-01-31 09:15 UTC" and moment("x<y") == "x<y"


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_can_be_read_on_every_ground() -> None:
    css = template_text("style.css")
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in css.split("prefers-color-scheme: dark")
    )
    assert len(light) == len(dark) == 12 and light != dark
    for palette in (light, dark):
        for ground in ("page", "card", "shade", "mark"):
            for ink in ("text", "quiet", "link", "accent", "good", "warn", "bad"):
                one, two = sorted((luminance(palette[ground]), luminance(palette[ink])), reverse=True)
                assert (one + 0.05) / (two + 0.05) >= 4.5, (ground, ink, (one + 0.05) / (two + 0.05))
