"""Text from elsewhere: whether it may go into a table, and how it is shown in a sentence."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

#: Control characters, lone surrogates and the two Unicode line ends: none has a place in a name or a parameter.
_REFUSED = ("Cc", "Cs", "Zl", "Zp")
#: What turns the direction of the text after it: a name then reads as another one.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: A cell that a spreadsheet computes when the table is opened; a plain number may begin with a sign.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.]+\Z)")


def hides(text: str, allowed: str = "") -> bool:
    """Whether ``text`` has characters that do not show what they do: control and direction characters, surrogates."""
    if text.isascii() and text.isprintable():
        return False
    return any(
        (unicodedata.category(c) in _REFUSED or c in _DIRECTION) and c not in allowed for c in dict.fromkeys(text)
    )


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
    return "".join(ascii(c)[1:-1] if hides(c) else c for c in text) if hides(text) else text


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
