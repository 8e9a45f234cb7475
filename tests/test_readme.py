"""What the README claims: its numbers are those of the reference runs, its commands and links exist."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import FILES, REFERENCE, ROOT, RUNS, filled


def test_made_blocks_are_those_of_the_reference_runs_and_the_registry() -> None:
    for file, blocks in FILES.items():
        text = file.read_text(encoding="utf-8")
        assert text == filled(text, *blocks), "run `python -m tests.readme`"


PAGES = (*FILES, ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_commands_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in rules, target
    for config in re.findall(r"configs/[a-z]+\.yaml", text):
        assert (ROOT / config).is_file(), config
    for module in re.findall(r"python -m ((?:tests|benchmarks|cytolib)[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    commands = subprocess.run([sys.executable, "-m", "cytolib.cli", "--help"], capture_output=True, text=True).stdout
    for command in re.findall(r"(?:^|`|bin/)cytolib ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^    {command}\b", commands, re.MULTILINE), command
    for path in re.findall(r"`((?:cytolib|tests|benchmarks|configs|notebooks|workflow)/[\w./*]+)`", text):
        assert list(ROOT.glob(path)), path


def test_reference_runs_are_small_and_name_no_machine() -> None:
    for run in RUNS:
        files = [path for path in (REFERENCE / run).rglob("*") if path.is_file()]
        assert files and sum(path.stat().st_size for path in files) < 8_000_000
        for path in files:
            if path.suffix in (".ipynb", ".json", ".csv"):
                words = path.read_text(encoding="utf-8")
                assert str(ROOT) not in words and "/root/" not in words, path
        described = json.loads((REFERENCE / run / "run.json").read_text())
        assert set(described) >= {"stages", "parameters", "versions"}


def test_the_pbc_run_holds_what_was_promised() -> None:
    """Tuned logistic regression on morphometry reaches .95 balanced accuracy on real test cells."""
    with open(REFERENCE / "pbc" / "10_figures" / "key_results.csv", newline="", encoding="utf-8") as file:
        found = {row["what"]: row for row in csv.DictReader(file)}
    real = next(row for what, row in found.items() if "real cells, test cells" in what)
    assert float(real["value"]) >= 0.95 and int(real["n"]) > 2500
