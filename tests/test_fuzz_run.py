"""Fuzzing what the runner reads: manifests, names, configurations, parameters cells and notebooks."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytolib.run.config import read_config
from cytolib.run.manifest import read_manifest, safe_name
from cytolib.run.parameters import TYPES, Parameter, _from_source, check_value, override
from cytolib.run.sources import notebook_sha256, read_notebook
from cytolib.text import hides
from tests.hostile.cases_runs import GOOD
from tests.run_tools import toy_chain, write_notebook

#: The same inputs every time; a folder of a test serves all of its examples, each of which writes its file anew.
FUZZ = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(max_size=12) | st.sampled_from(
    ["..", "../x", "/x", "a/b.txt", "\\x", "C:/x", "a\0b", "./.", "~", "a//b"]
)


def refused(call: Callable[[], Any], *words: str) -> Any:
    """What ``call`` returns; where it refuses, by an expected error of one printable sentence, None."""
    try:
        return call()
    except (ValueError, TypeError, FileNotFoundError) as error:
        said = str(error)
        assert said and said.isprintable() and len(said) < 1500, said
        assert all(word in said for word in words), said
        return None


@st.composite
def mutated(draw: st.DrawFn, good: Any) -> Any:
    """A copy of ``good`` with some of its values, at any depth, replaced, removed or added."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place, steps = value, draw(st.integers(0, 3))
        for _ in range(steps):
            inner = [
                v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, dict | list) and v
            ]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        if not place:
            continue
        key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(NAMES)] = place.pop(key) if draw(st.booleans()) else draw(JSON)
        else:
            place[key] = draw(JSON)
    return value


@FUZZ
@given(values=JSON | mutated(GOOD))
def test_manifests(tmp_path: Path, values: Any) -> None:
    """Whatever stands in it: a manifest whose names stay in their folders, or one sentence."""
    (tmp_path / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    found = refused(lambda: read_manifest(tmp_path), "manifest.json")
    if found is not None:
        assert found == values
        for name in found["outputs"]:
            assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())
        assert all(0 <= file["bytes"] < 2**63 for file in found["outputs"].values())


@FUZZ
@given(
    content=st.binary(max_size=200), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
)
def test_manifests_of_other_bytes(tmp_path: Path, content: bytes, flips: list[tuple[int, int]]) -> None:
    spoilt = bytearray(json.dumps(GOOD).encode())
    for place, byte in flips:
        spoilt[place % len(spoilt)] = byte
    for candidate in (content, bytes(spoilt)):
        (tmp_path / "manifest.json").write_bytes(candidate)
        refused(lambda: read_manifest(tmp_path), "manifest.json")


@FUZZ
@given(name=NAMES | JSON)
def test_names_stay_in_their_folder(tmp_path: Path, name: Any) -> None:
    if refused(lambda: safe_name(name)) is not None:
        assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve()) and (tmp_path / name) != tmp_path
        assert not hides(name)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("chain")
        patch.syspath_prepend(str(folder))
        yield toy_chain(folder)


CONFIG = {"run": "a", "stages": {"first": {"seed": 1}, "second": {"n": 2, "names": ["x"]}}}


@FUZZ
@given(values=mutated(CONFIG), flow=st.booleans())
def test_configurations(tmp_path: Path, chain: Any, values: Any, flow: bool) -> None:
    """What is taken has every parameter of every stage, in its type."""
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump(values, default_flow_style=flow), encoding="utf-8", errors="replace"
    )
    config = refused(lambda: read_config(tmp_path / "c.yaml", chain), "c.yaml")
    if config is not None:
        assert set(config.parameters) == {"first", "second", "third"}
        assert type(config.parameters["first"]["seed"]) is int
        assert all(type(name) is str for name in config.parameters["second"]["names"])


YAML = st.text(alphabet="abn: -[]{}&*!|>'\"#%@`\t\n?,~<=0159._rus", max_size=60)


@FUZZ
@given(text=YAML | st.text(max_size=40), content=st.binary(max_size=40))
def test_configurations_of_any_text(tmp_path: Path, chain: Any, text: str, content: bytes) -> None:
    for candidate in (text.encode("utf-8", "replace"), b"run: " + text.encode("utf-8", "replace"), content):
        (tmp_path / "c.yaml").write_bytes(candidate)
        refused(lambda: read_config(tmp_path / "c.yaml", chain), "c.yaml")


KNOWN = {f"p{number}": Parameter(f"p{number}", type_, None) for number, type_ in enumerate(TYPES)}


@FUZZ
@given(overrides=JSON | st.dictionaries(st.sampled_from(sorted(KNOWN)) | st.text(max_size=5), JSON, max_size=3))
def test_overrides(overrides: Any) -> None:
    found = refused(lambda: override(KNOWN, overrides, "c"), "c")
    for name, value in (found or {}).items():
        if name in (overrides or {}):
            assert check_value(value, KNOWN[name].type, "c") == value


VALUES: dict[str, Any] = {
    "int": st.integers(),
    "float": st.floats(),
    "bool": st.booleans(),
    "str": st.text(max_size=40) | st.text(alphabet="\"'\\\n\t{}%$#;()[]:=abc\u2028\u202e\x85\0", max_size=30),
}
VALUES |= {f"list[{name}]": st.lists(VALUES[name], max_size=4) for name in ("int", "float", "str")}


@FUZZ
@given(data=st.data())
def test_values_arrive_through_papermills_cell(data: st.DataObject) -> None:
    """Every value that is accepted is, in the cell that papermill injects, this value and nothing else."""
    from papermill.translators import PythonTranslator

    type_ = data.draw(st.sampled_from(TYPES))
    value = data.draw(VALUES[type_])
    taken = refused(lambda: [check_value(value, type_, "c")], "c")
    if taken is None:
        return
    source = PythonTranslator.codify({"value": taken[0]}, comment="Parameters")
    scope: dict[str, Any] = {"__builtins__": {}}
    exec(compile(source, "cell", "exec"), scope)
    scope.pop("__builtins__")
    assert scope == {"value": taken[0]} and type(scope["value"]) is type(taken[0])


LINES = st.sampled_from(
    ["seed: int = 1", "a: list[str] = ['x']", "b: float = .5  # help", "import os", "c: str = f()", ""]
)
SOURCES = st.lists(LINES | st.text(alphabet=string.printable, max_size=30), max_size=4).map("\n".join)


@FUZZ
@given(source=SOURCES | st.text(max_size=60))
def test_parameters_cells(source: str) -> None:
    """Literals come out of it, or one sentence; nothing is evaluated."""
    found = refused(lambda: _from_source(source, "n.ipynb"), "n.ipynb")
    for name, parameter in (found or {}).items():
        assert name.isidentifier() and parameter.type in TYPES
        assert json.loads(json.dumps(parameter.default)) == parameter.default


@FUZZ
@given(data=st.data())
def test_notebooks(tmp_path: Path, data: st.DataObject) -> None:
    good = json.loads(write_notebook(tmp_path / "n.ipynb", "x = 1").read_text())
    values = data.draw(mutated(good) | JSON)
    (tmp_path / "n.ipynb").write_text(json.dumps(values), encoding="utf-8")
    found = refused(lambda: read_notebook(tmp_path / "n.ipynb"), "n.ipynb")
    if found is not None:
        assert all(type(cell["source"]) is str and type(cell["metadata"]) is dict for cell in found["cells"])
        assert len(notebook_sha256(tmp_path / "n.ipynb")) == 64
