"""What a cell shows, as notebook outputs: printed text, the value of its last line, figures, and its error."""

from __future__ import annotations

import ast
import base64
import io
import linecache
import pprint
import re
import sys
import traceback
import types
from collections.abc import Mapping
from typing import IO, Any

# Kinds of output that objects offer of themselves, beside their plain text.
_METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
}
_SKIPPED = re.compile(r"%(load_ext\s+autoreload|autoreload(\s+\d)?)\s*")
_MAGIC = re.compile(r"\s*(%{1,2}\w|!|\?\w|[\w.]+\?{1,2}\s*$)")
current: Recorder | None = None  # the one whose cell runs; `plt.show()` goes to it


class _Stream(io.TextIOBase):
    """A text stream that goes to the log as it comes, and to the cell's outputs."""

    def __init__(self, name: str, log: IO[str], recorder: Recorder) -> None:
        self.name, self._log, self._recorder = name, log, recorder

    def write(self, text: str) -> int:
        self._log.write(text)
        self._recorder.text(self.name, text)
        return len(text)

    def flush(self) -> None:
        self._log.flush()

    def fileno(self) -> int:
        return self._log.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


class Recorder:
    """Runs cells and records what they show; ``display`` is what IPython calls so."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []

    def run(self, source: str, count: int, space: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """Execute one cell in ``space``; its outputs, and whether it ended without an error."""
        global current
        self.outputs = []
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Stream("stdout", streams[0], self), _Stream("stderr", streams[1], self)
        current = self
        fine = True
        try:
            self._execute(source, count, space)
            self.figures()
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the cell did not reach its end
            fine = False
            self._error(error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = streams
            current = None
        return [_tidy(output) for output in self.outputs], fine

    def _execute(self, source: str, count: int, space: dict[str, Any]) -> None:
        name, plain = f"<cell {count}>", without_magics(source)
        linecache.cache[name] = (len(plain), None, plain.splitlines(keepends=True), name)  # for tracebacks
        tree = ast.parse(plain, name)
        last = tree.body[-1] if tree.body else None
        shown = isinstance(last, ast.Expr) and not _ends_in_semicolon(plain)
        body = tree.body[:-1] if shown else tree.body
        exec(compile(ast.Module(body, []), name, "exec", dont_inherit=True), space)  # noqa: S102
        if shown:
            assert isinstance(last, ast.Expr)
            value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), space)  # noqa: S307
            if value is not None:
                data = mime_bundle(value)
                result = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
                self.outputs.append(result)

    def text(self, stream: str, text: str) -> None:
        """Add printed text to the last output, where that is of the same stream."""
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == stream:
            last["text"] += text
        elif text:
            self.outputs.append({"output_type": "stream", "name": stream, "text": text})

    def display(self, *values: Any, **_: Any) -> None:
        """Show values in the order of the call, as IPython's ``display`` does."""
        for value in values:
            self.outputs.append({"output_type": "display_data", "metadata": {}, "data": mime_bundle(value)})

    def figures(self) -> None:
        """Show every open figure of pyplot, and close it."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if figure.axes or figure.lines or figure.texts:
                    self.display(figure)
                pyplot.close(figure)

    def _error(self, error: BaseException) -> None:
        frames = traceback.TracebackException.from_exception(error)
        frames.stack = traceback.StackSummary.from_list([frame for frame in frames.stack if frame.filename != __file__])
        lines = "".join(frames.format()).rstrip("\n").split("\n")
        self.outputs.append(
            {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}
        )
        if sys.__stderr__ is not None:
            print("\n".join(lines), file=sys.__stderr__, flush=True)


def _ends_in_semicolon(source: str) -> bool:
    import tokenize

    kept = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in kept]
    return bool(tokens) and tokens[-1].string == ";"


def without_magics(source: str) -> str:
    """The source of a cell as plain Python: the magics of autoreload, which an executed notebook has no use for, go.

    Raises:
        SyntaxError: for any other magic: it is IPython's and not Python.
    """
    lines = source.split("\n")
    for number, line in enumerate(lines):
        if _SKIPPED.fullmatch(line):
            lines[number] = "pass"
    plain = "\n".join(lines)
    try:
        compile(plain, "<cell>", "exec", dont_inherit=True)
    except SyntaxError as error:
        bad = lines[(error.lineno or 1) - 1] if (error.lineno or 1) <= len(lines) else ""
        if _MAGIC.match(bad):
            raise SyntaxError(
                f"{bad.strip()!r} is IPython's, not Python: without Jupyter only %load_ext autoreload and %autoreload "
                "are known; take the line out or run without --plain"
            ) from None
        raise
    return plain


def mime_bundle(value: Any) -> dict[str, Any]:
    """What an object shows of itself in a notebook, by kind: always plain text, and what else it offers."""
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None and isinstance(value, figure.Figure):
        picture = io.BytesIO()
        value.savefig(picture, format="png", dpi=value.dpi, bbox_inches="tight")
        return {"image/png": base64.b64encode(picture.getvalue()).decode("ascii"), "text/plain": repr(value)}
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        # pandas takes anything but Jupyter for a terminal, and would leave out columns
        with pandas.option_context("display.max_columns", 20):
            return _of_itself(value)
    return _of_itself(value)


def _of_itself(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if not isinstance(value, type | types.ModuleType):
        bundle = getattr(value, "_repr_mimebundle_", lambda **_: None)(include=None, exclude=None)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(bundle, Mapping):
            data |= bundle
        for kind, method in _METHODS.items():
            shown = getattr(value, method, lambda: None)() if kind not in data else None
            if shown is not None:
                data[kind] = base64.b64encode(shown).decode("ascii") if isinstance(shown, bytes) else shown
    text = pprint.pformat(value, width=79, sort_dicts=False)
    return {**data, "text/plain": data.get("text/plain", text)}


def _tidy(output: dict[str, Any]) -> dict[str, Any]:
    """Of a progress bar that overwrites its line, the line as it stood last."""
    if output["output_type"] == "stream" and "\r" in output["text"]:
        lines = output["text"].replace("\r\n", "\n").split("\n")
        output["text"] = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
    return output
