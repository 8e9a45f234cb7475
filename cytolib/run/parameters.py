"""Parameters of stages: read from a notebook's tagged cell or a function's signature, and overridden strictly.

papermill only warns of an unknown parameter and never checks a type, and a misspelt parameter that is silently left
at its default makes a wrong result. Here both are errors, before anything runs.
"""

from __future__ import annotations

import ast
import difflib
import io
import math
import re
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytolib.run.sources import read_notebook
from cytolib.text import hides, reason, shown

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")  # ASCII: other letters look alike, and Python takes some for others
TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")


@dataclass(frozen=True)
class Parameter:
    """A typed parameter with its default and its help line."""

    name: str
    type: str
    default: Any
    help: str = ""


def check_value(value: Any, type_: str, where: str) -> Any:
    """``value`` as the type ``type_`` names: int is taken for float, bool never for int.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a number that is not finite or needs more than 64 bits, or a text with characters that do not
            show (control and direction characters).
    """
    if type_.startswith("list["):
        if not isinstance(value, list):
            raise TypeError(f"{where}: expected {type_}, found {_shown(value)}; write it as [a, b]")
        return [check_value(item, type_[5:-1], f"{where}[{i}]") for i, item in enumerate(value)]
    accepted: tuple[type, ...] = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,)}[type_]
    if not isinstance(value, accepted) or (isinstance(value, bool) and type_ != "bool"):
        raise TypeError(f"{where}: expected {type_}, found {_shown(value)}{_yaml_hint(value, type_)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where}: {shown(value)} needs more than 64 bits; write a smaller one")
    if type_ == "float" and isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, found {value}; leave the parameter out instead")
        return float(value)
    if isinstance(value, str) and hides(value, allowed="\n\t"):
        raise ValueError(
            f"{where}: found a control or direction character in {_escaped(value)}; expected printable text"
        )
    return value


def _shown(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"


def _escaped(text: str) -> str:
    return shown(text) if shown(text).isascii() else ascii(text)[:80]


def _yaml_hint(value: Any, type_: str) -> str:
    if type_ == "float" and isinstance(value, str):
        try:
            number = float(value)
            return (
                f"; YAML reads this as text, write {number!r}" if math.isfinite(number) else "; write a finite number"
            )
        except ValueError:
            return ""
    return "; put it in quotation marks" if type_ == "str" else ""


def notebook_parameters(path: Path) -> dict[str, Parameter]:
    """Parameters of a notebook: the lines ``name: type = literal  # help`` of its one cell tagged ``parameters``.

    Raises:
        FileNotFoundError: where there is no such notebook.
        ValueError: where it has not exactly one such cell, or the cell holds anything but such lines.
    """
    cells = [c for c in read_notebook(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1 or cells[0]["cell_type"] != "code":
        raise ValueError(f"{path}: expected exactly one code cell tagged 'parameters', found {len(cells)}")
    return _from_source(cells[0]["source"], f"{path}, parameters cell")


def _from_source(source: str, where: str) -> dict[str, Parameter]:
    try:
        body = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{where}: not valid Python ({reason(error)}); expected lines 'name: type = literal'"
        ) from None
    helps = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for node in body:
        line = f"{where}, line {node.lineno}"
        good = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
        if not good or node.lineno != node.end_lineno:
            raise ValueError(f"{line}: expected 'name: type = literal  # help' on one line, found something else")
        assert isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
        name = node.target.id
        if not _NAME.fullmatch(name):
            raise ValueError(f"{line}: {shown(name)} is no name of a parameter; expected a-z, 0-9 and _")
        if name in found:
            raise ValueError(f"{line}: {name!r} is set twice; keep one line for each parameter")
        found[name] = _parameter(name, node.annotation, node.value, helps.get(node.lineno, ""), line)
    return found


def _parameter(name: str, annotation: ast.expr, value: ast.expr, help_: str, where: str) -> Parameter:
    type_ = _type_name(annotation)
    if type_ not in TYPES:
        raise ValueError(f"{where}: {name!r} has type {type_[:60]}; expected one of {', '.join(TYPES)}")
    try:
        literal = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{where}: the default of {name!r} is no literal; write the value itself") from None
    if isinstance(literal, tuple):
        literal = list(literal)
    return Parameter(name, type_, check_value(literal, type_, f"{where}, {name}"), help_)


def _type_name(annotation: ast.expr) -> str:
    """``list[int]`` for ``list[int]``, ``Sequence[int]`` and ``tuple[int, ...]``: all are JSON lists."""
    try:
        text = ast.unparse(annotation).strip("'\"").replace(" ", "")
    except (RecursionError, ValueError):
        return "nested too deeply"
    for sequence in ("Sequence[", "tuple["):
        if text.startswith(sequence):
            return "list[" + text[len(sequence) :].replace(",...", "")
    return text


def script_parameters(entry: str) -> dict[str, Parameter]:
    """Parameters of the function ``module:function``, read from its source without importing it.

    Its first argument is the stage; every other one is a parameter and needs a type and a literal default.
    """
    module, _, function = entry.partition(":")
    path = module_file(module)
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    nodes = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function]
    if not nodes:
        raise ValueError(f"{path}: there is no function {function!r}, which the stage's entry {entry!r} names")
    arguments = nodes[0].args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    found: dict[str, Parameter] = {}
    for argument, default in pairs[1:]:
        where = f"{path}, line {argument.lineno}"
        if argument.annotation is None or default is None:
            raise ValueError(f"{where}: {argument.arg!r} of {function} needs a type and a default, as a parameter has")
        found[argument.arg] = _parameter(argument.arg, argument.annotation, default, "", where)
    return found


def module_file(module: str) -> Path:
    """Source file of a module, without importing it or its packages."""
    import cytolib

    places = [Path(p or ".") for p in sys.path]
    if module.split(".")[0] == "cytolib":
        places.insert(0, Path(cytolib.__file__).parents[1])
    stem = Path(*module.split("."))
    for place in places:
        for file in (place / stem.with_suffix(".py"), place / stem / "__init__.py"):
            if file.is_file():
                return file
    raise FileNotFoundError(f"the module {module} of a script stage is not on Python's path; is cytolib installed?")


def override(parameters: Mapping[str, Parameter], overrides: Any, where: str) -> dict[str, Any]:
    """Effective values: the defaults with ``overrides`` in their place.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
        TypeError: for a value of the wrong type, or overrides that are no mapping.
    """
    if overrides is None:
        overrides = {}
    if not isinstance(overrides, Mapping):
        raise TypeError(f"{where}: expected a mapping of parameters to values, found {_shown(overrides)}")
    values = {name: parameter.default for name, parameter in parameters.items()}
    for name, value in overrides.items():
        if name not in parameters:
            raise ValueError(f"{where}: unknown parameter {shown(name)}; {suggest(str(name), parameters)}")
        values[name] = check_value(value, parameters[name].type, f"{where}.{name}")
    return values


def suggest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """The end of an error sentence: the nearest known name, or all known ones."""
    near = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
