"""What a case is, and the list of all of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Door = Callable[[], object]
Maker = Callable[[Path], Door]


@dataclass(frozen=True)
class Case:
    """An input, the door it is given to, and what must be said.

    Attributes:
        input: what the input is, in a few words.
        door: the command or function that a user calls.
        make: makes the input in a folder and returns the call.
        says: words that the sentence must have: the file's or parameter's name, and what is wrong with it.
        goes_on: the call does not refuse as a whole; it returns the line that names the file.
        leaves: patterns of what may stand afterwards that was not there before, relative to the case's folder.
        starts: the call may start processes.
    """

    input: str
    door: str
    make: Maker
    says: tuple[str, ...]
    goes_on: bool = False
    leaves: tuple[str, ...] = ()
    starts: bool = False


CASES: list[Case] = []


def case(
    input: str, door: str, *says: str, goes_on: bool = False, leaves: tuple[str, ...] = (), starts: bool = False
) -> Callable[[Maker], Maker]:
    """Add the function below to the list."""

    def add(make: Maker) -> Maker:
        assert says, f"{input}: a case needs words that must be said"
        CASES.append(Case(input, door, make, says, goes_on, leaves, starts))
        return make

    return add


class RefusalError(ValueError):
    """What a command said on its way out with code 2."""


def command(*arguments: str) -> list[str]:
    """Lines that ``cytolib ...`` prints.

    Raises:
        RefusalError: with what it says on the error stream, where it refuses.
    """
    from cytolib import cli

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = cli.main(arguments)
    if code == 2:
        lines = [line for line in error.getvalue().split("\n") if not line.startswith("\r")]  # a progress bar's
        raise RefusalError("\n".join(lines).removesuffix("\n").removeprefix("cytolib: "))
    return out.getvalue().splitlines()


def line_with(lines: list[str], word: str) -> str:
    """The one line that has ``word``, and never more: a name must not make lines of its own."""
    found = [line.strip() for line in lines if word in line]
    assert found, f"nothing says {word!r}: {lines}"
    return found[0]
