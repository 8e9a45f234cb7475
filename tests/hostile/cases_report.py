"""The report of a run: markup in names and values stays text. (HTML that a notebook itself prints is nbconvert's.)"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytolib.run.report import write_report
from tests.hostile.case import Door, case, line_with
from tests.hostile.cases_runs import GOOD

SCRIPT = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)"


def report_case(input: str, spoil: Callable[[Path, dict[str, Any], dict[str, Any]], None]) -> None:
    """A run of one stage; ``spoil(run folder, manifest, parameters)`` puts markup somewhere."""

    @case(input, "cytolib run: index.html", ESCAPED, goes_on=True, leaves=("run", "run/index.html"))
    def _(folder: Path) -> Door:
        manifest, parameters = json.loads(json.dumps(GOOD | {"stage": "10_figures"})), {"seed": 1}
        run = folder / "run"
        (run / "10_figures").mkdir(parents=True)
        spoil(run, manifest, parameters)
        (run / "10_figures" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

        def door() -> str:
            html = write_report(run, ["10_figures"], {"10_figures": parameters}).read_text(encoding="utf-8")
            assert SCRIPT not in html, "the markup stands in the page as it is"
            return line_with(html.splitlines(), ESCAPED)

        return door


def _key_result(run: Path, _: dict[str, Any], __: dict[str, Any]) -> None:
    rows = f"what,value,low,high,n,where\nrecall of {SCRIPT},0.5,,,10,01_embed\n"
    (run / "10_figures" / "key_results.csv").write_text(rows, encoding="utf-8")


def _figure(_: Path, manifest: dict[str, Any], __: dict[str, Any]) -> None:
    manifest["outputs"][f'figures/"onerror="x {SCRIPT}.png'.replace("</", "<")] = {"sha256": "0" * 64, "bytes": 1}


report_case("script in a class label of the key results", _key_result)
report_case("script in the name of a figure", _figure)
report_case("script in a parameter's value", lambda _, __, parameters: parameters.update(dataset=SCRIPT))
report_case("script in a version of a manifest", lambda _, manifest, __: manifest["versions"].update(python=SCRIPT))
