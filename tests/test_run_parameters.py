"""Parameters and configurations are taken strictly, and nothing in them can become code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cytolib.run.config import read_config
from cytolib.run.parameters import check_value, notebook_parameters, override, script_parameters
from cytolib.text import hides
from tests.run_tools import toy_chain, write_notebook

GOOD = """
# comments and blank lines are fine
seed: int = 3  # where chance starts
rate: float = 1e-3

names: list[str] = ["a", "b"]  # classes
show: bool = False
"""


def test_parameters_cell_is_read(tmp_path: Path) -> None:
    found = notebook_parameters(write_notebook(tmp_path / "n.ipynb", parameters=GOOD))
    assert {k: (p.type, p.default) for k, p in found.items()} == {
        "seed": ("int", 3),
        "rate": ("float", 1e-3),
        "names": ("list[str]", ["a", "b"]),
        "show": ("bool", False),
    }
    assert found["seed"].help == "where chance starts"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed = 3", "name: type = literal"),
        ("seed: int = __import__('os').getpid()", "no literal"),
        ("seed: int = 1 + x", "no literal"),
        ("import os", "name: type = literal"),
        ("seed: dict = {}", "has type dict"),
        ("seed: int = 1.5", "expected int, found 1.5 (float)"),
        ("seed: int = True", "expected int, found True (bool)"),
        ("seed: int = 1\nseed: int = 2", "set twice"),
        ("names: list[str] = [\n'a']", "on one line"),
        ("seed: int = ", "not valid Python"),
    ],
)
def test_anything_else_in_the_cell_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = write_notebook(tmp_path / "n.ipynb", parameters=line)
    with pytest.raises((ValueError, TypeError), match="n.ipynb") as caught:
        notebook_parameters(path)
    assert said in str(caught.value)


def test_a_notebook_needs_one_parameters_cell(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb")
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ValueError, match="exactly one code cell tagged 'parameters', found 0"):
        notebook_parameters(path)


def test_overrides_are_strict(tmp_path: Path) -> None:
    known = notebook_parameters(write_notebook(tmp_path / "n.ipynb", parameters=GOOD))
    assert override(known, {"rate": 2}, "c") == {"seed": 3, "rate": 2.0, "names": ["a", "b"], "show": False}
    assert isinstance(override(known, {"rate": 2}, "c")["rate"], float)
    with pytest.raises(ValueError, match="unknown parameter 'sede'; did you mean 'seed'"):
        override(known, {"sede": 3}, "c")
    for name, value in [("seed", True), ("seed", 1.0), ("seed", "1"), ("show", 1), ("names", "ab"), ("names", [1]),
                        ("rate", None), ("rate", True)]:  # fmt: skip
        with pytest.raises(TypeError, match=f"c.{name}"):
            override(known, {name: value}, "c")
    with pytest.raises(TypeError, match=r"YAML reads this as text, write 0.001"):
        override(known, {"rate": "1e-3"}, "c")
    with pytest.raises(ValueError, match="finite"):
        override(known, {"rate": float("inf")}, "c")


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs"]) | st.sampled_from("\"'\\\n{}")))
def test_a_text_is_injected_as_that_text(text: str) -> None:
    assume(not hides(text, allowed="\n\t"))  # these are refused
    from papermill.translators import PythonTranslator

    line = PythonTranslator.codify({"value": check_value(text, "str", "c")})
    body = ast.parse(line).body
    assert len(body) == 1 and isinstance(body[0], ast.Assign)
    assert ast.literal_eval(body[0].value) == text


def test_script_parameters_are_read_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweeping.py").write_text(
        "raise RuntimeError('imported')\n"
        "def main(stage, seeds: tuple[int, ...] = (0, 1), *, rate: float = 1.0) -> None: ...\n"
        "def bare(stage, seeds=(0, 1)) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = script_parameters("sweeping:main")
    assert {k: (p.type, p.default) for k, p in found.items()} == {
        "seeds": ("list[int]", [0, 1]),
        "rate": ("float", 1.0),
    }
    with pytest.raises(ValueError, match="'seeds' of bare needs a type"):
        script_parameters("sweeping:bare")
    with pytest.raises(ValueError, match="no function 'absent'"):
        script_parameters("sweeping:absent")
    with pytest.raises(FileNotFoundError, match="no_such_module"):
        script_parameters("no_such_module:main")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: interactive", "kept for other uses"),
        ("run: reference", "kept for other uses"),
        ("run: ../x", "letters, digits"),
        ("run: 5", "letters, digits"),
        ("stages: {}", "letters, digits"),
        ("run: a\nstage: {}", "unknown key 'stage'; did you mean 'stages'"),
        ("run: a\nstages: {frist: {}}", "unknown stage 'frist'; did you mean 'first'"),
        ("run: a\nstages: {first: {sede: 1}}", "did you mean 'seed'"),
        ("run: a\nstages: {second: {n: x}}", "expected int"),
        ("run: a\nstages: {first: [1]}", "expected a mapping"),
        ("run: a\nrun: b", "given twice"),
        ("run: a\nstages: {1: {}}", "is no text"),
        ("run: [", "not readable as YAML"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("- a", "expected the keys"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    chain = toy_chain(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises((ValueError, TypeError), match="c.yaml") as caught:
        read_config(tmp_path / "c.yaml", chain)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_configuration_gives_every_effective_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "c.yaml").write_text("run: a_1\nstages:\n  second: {n: 5}\n")
    config = read_config(tmp_path / "c.yaml", toy_chain(tmp_path))
    assert config.run == "a_1"
    assert config.parameters == {"first": {"seed": 0}, "second": {"n": 5, "names": ["a"]}, "third": {"seed": 0}}
