"""Text from elsewhere: whether it may go into a table, and how it is shown in a sentence."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

#: A cell that a spreadsheet computes when the table is opened; a plain number may begin with a sign.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.]+\Z)")


def hides(text: str, allowed: str = "") -> bool:
    """Whether ``text`` has characters that do not show: control and direction characters, line ends, surrogates.

    Letters of all scripts and wide blanks are no such characters; those in ``allowed`` are taken too.
    """
    if text.isprintable():
        return False
    odd = (c for c in dict.fromkeys(text) if not c.isprintable() and c not in allowed)
    return any(unicodedata.category(c) != "Zs" for c in odd)


def like_formula(text: str) -> bool:
    """Whether a spreadsheet would take ``text`` for a formula (CWE-1236)."""
    return _FORMULA.match(text) is not None


def unfit(text: str) -> str:
    """Why ``text`` may not be a value in a table of cells; empty if it may."""
    if hides(text):
        return "has control or direction characters"
    return "begins as a spreadsheet's formula does" if like_formula(text) else ""


def printable(text: str) -> str:
    """``text`` on one line, with hidden characters written as escapes: safe for a terminal and a report."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: BaseException, length: int = 160) -> str:
    """What a library's exception says, as a part of a sentence of ours: one short line, whatever the error is."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "too large or nested too deeply"
    text = " ".join(str(error).split())
    if "integer string conversion" in text:  # Python's words advise to lift the limit
        return "a number of more than 4300 digits"
    return printable(text)[:length] or type(error).__name__


class _Short(reprlib.Repr):
    """A repr whose length and time have a bound, whatever is in the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 57
        self.maxlevel, self.maxlist, self.maxdict = 3, 4, 4

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out integers of more than 4300 digits.
        return f"a whole number of {x.bit_length()} bits" if x.bit_length() > 256 else repr(x)


_SHORT = _Short()


def shown(value: Any) -> str:
    """A value in a sentence: its repr, cut short."""
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
