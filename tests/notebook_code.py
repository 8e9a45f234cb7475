"""The rules on a notebook's code: short cells of calls that run anywhere. Each yields complaints; see notebook_lint."""

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager
from papermill.translators import PythonTranslator

Notebook = dict[str, Any]
Statement = tuple[int, ast.AST]

MAX_CELL_LINES = 25
MAX_FUNCTION_LINES = 10
MAX_LOOP_LINES = 5
FIRST_PICTURE_WITHIN = 8
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "list": (list,),
    "dict": (dict,),
}


def code_cells(notebook: Notebook) -> list[tuple[int, str]]:
    """(position in the notebook, source) of every code cell."""
    return [(n, cell["source"]) for n, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"]


def parse(source: str) -> ast.Module | None:
    """The cell's syntax tree, magics and shell lines turned into calls; None if it does not parse."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return None


def nodes(notebook: Notebook) -> Iterator[Statement]:
    """(cell, node) for every syntax node of every code cell that parses."""
    for number, source in code_cells(notebook):
        tree = parse(source)
        for node in ast.walk(tree) if tree else ():
            yield number, node


def dotted(node: ast.AST) -> str:
    """'figures.map' for the expression figures.map; '' for what is no plain dotted name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def length(node: ast.stmt) -> int:
    """Lines that a statement takes, decorators included."""
    first = min([node.lineno] + [mark.lineno for mark in getattr(node, "decorator_list", [])])
    return (node.end_lineno or node.lineno) - first + 1


def check_cells_parse_and_are_short(notebook: Notebook) -> Iterator[str]:
    for number, source in code_cells(notebook):
        if parse(source) is None:
            yield f"cell {number}: is not valid Python"
        lines = len(source.strip().splitlines())
        if lines > MAX_CELL_LINES:
            yield f"cell {number}: {lines} lines, at most {MAX_CELL_LINES}: split it, or move work to cytolib"
        if not lines:
            yield f"cell {number}: is empty"


def check_parameters(notebook: Notebook) -> Iterator[str]:
    cells = [(n, cell) for n, cell in enumerate(notebook["cells"]) if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1 or cells[0][1]["cell_type"] != "code":
        yield f"expected one code cell tagged parameters, found {len(cells)}"
        return
    number, cell = cells[0]
    tree = parse(cell["source"])
    shape = "expected `name: type = literal  # help`"
    for statement in tree.body if tree else ():
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value):
            yield f"cell {number}: parameter line {ast.unparse(statement)!r}: {shape}"
            continue
        yield from (f"cell {number}: {problem}; {shape}" for problem in parameter_problems(cell["source"], statement))
    # papermill drops lines that it cannot read without a word, and the parameter could then never be set.
    seen = {parameter.name for parameter in PythonTranslator.inspect(cell)}
    written = {dotted(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)} if tree else set()
    for name in sorted(written - seen):
        yield f"cell {number}: papermill cannot read parameter {name}; {shape}"


def parameter_problems(source: str, statement: ast.AnnAssign) -> Iterator[str]:
    """What is wrong with one parameter: value, type or the help behind it."""
    name, annotation = dotted(statement.target), ast.unparse(statement.annotation)
    try:
        value = ast.literal_eval(statement.value or ast.Constant(None))
    except ValueError:
        yield f"parameter {name} is no literal"
        return
    expected = TYPES.get(annotation.partition("[")[0])
    if expected is None:
        yield f"parameter {name} has type {annotation}, known are {', '.join(TYPES)}"
    elif not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        yield f"parameter {name} has type {annotation} and value {value!r}"
    last_line = source.splitlines()[(statement.end_lineno or statement.lineno) - 1]
    comment = last_line[statement.end_col_offset or 0 :].strip()
    if not re.fullmatch(r"#\s*\S.*", comment):
        yield f"parameter {name} has no help"
    elif "=" in comment:
        yield f"the help of parameter {name} holds '=', which papermill cannot read"


def check_no_class_and_short_functions(notebook: Notebook) -> Iterator[str]:
    for number, node in nodes(notebook):
        if isinstance(node, ast.ClassDef):
            yield f"cell {number}: class {node.name} belongs in cytolib"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > MAX_FUNCTION_LINES:
            yield f"cell {number}: function {node.name} has {length(node)} lines, at most {MAX_FUNCTION_LINES}"


def check_no_training_loop(notebook: Notebook) -> Iterator[str]:
    """`for step in train(...)` with a short body is the way; loops over epochs and backward passes are not."""
    for number, node in nodes(notebook):
        if isinstance(node, ast.Attribute) and node.attr in ("backward", "zero_grad"):
            yield f"cell {number}: a gradient step (.{node.attr}) belongs in cytolib"
        if not isinstance(node, ast.For):
            continue
        called = dotted(node.iter.func) if isinstance(node.iter, ast.Call) else ""
        trains = called.rpartition(".")[2].startswith("train")
        if trains and length(node) - 1 > MAX_LOOP_LINES:
            yield f"cell {number}: the loop over {called} has {length(node) - 1} lines, at most {MAX_LOOP_LINES}"
        if not trains and "epoch" in f"{ast.unparse(node.target)} {ast.unparse(node.iter)}".lower():
            yield f"cell {number}: a loop over epochs belongs in cytolib"


def check_paths_and_devices(notebook: Notebook) -> Iterator[str]:
    for number, source in code_cells(notebook):
        tree = parse(source)
        for text in leading_strings(tree) if tree else ():
            if re.match(r"/[\w.-]+|~[/\\]|\.\.(/|$)|[A-Za-z]:[\\/]|file:", text):
                yield f"cell {number}: path {text!r} lies outside the project: use run.data_root() or stage.path()"
            if re.fullmatch(r"cuda(:\d+)?", text):
                yield f"cell {number}: names the device {text!r}: use run.device()"
    for number, node in nodes(notebook):
        if isinstance(node, ast.Attribute) and (node.attr == "cuda" or dotted(node) == "sys.path"):
            advice = "use run.device()" if node.attr == "cuda" else "the package is installed"
            yield f"cell {number}: uses {ast.unparse(node)}: {advice}"
        if isinstance(node, ast.Attribute) and node.attr in ("chdir", "expanduser", "home"):
            yield f"cell {number}: uses .{node.attr}: paths come from cytolib.run"


def leading_strings(tree: ast.AST) -> Iterator[str]:
    """Every string in the code that can begin a path: plain ones, and of an f-string only its beginning."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def check_no_installs(notebook: Notebook) -> Iterator[str]:
    """An install line stands only inside `if "google.colab" in sys.modules:`."""
    for number, source in code_cells(notebook):
        guard: int | None = None
        for line in source.splitlines():
            indent = len(line) - len(line.lstrip())
            if line.strip() and guard is not None and indent <= guard:
                guard = None
            if re.match(r"\s*if .*google\.colab.* in sys\.modules", line):
                guard = indent
            if guard is None and re.match(r"\s*[!%]+\s*(\S*python\S* -m )?(pip|conda|mamba|uv|apt|cd)\b", line):
                yield f"cell {number}: unguarded {line.strip()!r}: the environment comes from the lock"


def check_picture_early(notebook: Notebook) -> Iterator[str]:
    """A call into a plotting module, or show, display, imshow, plot: early, because readers look at cells first."""
    plotting, drawing = {"figures", "plt", "sns"}, {"show", "display", "imshow", "plot"}
    setup = {"use", "style", "close", "set_theme", "set_style", "rc"}
    for node in (node for _, node in nodes(notebook)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cytolib.figures"):
            plotting |= {name.asname or name.name for name in node.names}
    for _, source in code_cells(notebook)[:FIRST_PICTURE_WITHIN]:
        tree = parse(source)
        for node in ast.walk(tree) if tree else ():
            name = dotted(node.func) if isinstance(node, ast.Call) else ""
            last = getattr(node.func, "attr", name) if isinstance(node, ast.Call) else ""
            if last in drawing or (name.split(".")[0] in plotting and last not in setup):
                return
    yield f"draws no picture in its first {FIRST_PICTURE_WITHIN} code cells"


def check_publishes_last(notebook: Notebook) -> Iterator[str]:
    publishing = [
        n for n, node in nodes(notebook) if isinstance(node, ast.Call) and dotted(node.func) == "stage.publish"
    ]
    last = code_cells(notebook)[-1][0] if code_cells(notebook) else -1
    if publishing != [last]:
        yield f"stage.publish() must be called once, in the last code cell; it is called in cells {publishing}"


CODE_RULES: list[Callable[[Notebook], Iterator[str]]] = [
    check_cells_parse_and_are_short,
    check_parameters,
    check_no_class_and_short_functions,
    check_no_training_loop,
    check_paths_and_devices,
    check_no_installs,
    check_picture_early,
    check_publishes_last,
]
