"""What the terminal shows while Snakemake runs: a line a stage, and on the way that something goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytolib.run.log import sign_of_life
from cytolib.run.stage import size_text

Say = Callable[[str], None]
FIRST_SIGN_S, NEXT_SIGN_S = 30.0, 60.0  # into a log that nobody watches
CLEAR = "\r\x1b[K"  # to the start of the line, and the rest of it empty


class Follower:
    """Says what the events of a run mean.

    Args:
        run_folder: folder of the run.
        wanted: the stages that it brings to an end, in order.
        say: where text goes.
        live: the text is read at a terminal: a last line shows what is at work and is drawn anew in place.
    """

    def __init__(self, run_folder: Path, wanted: Sequence[str], say: Say, *, live: bool = False) -> None:
        self.run_folder, self.wanted, self.say, self.live = run_folder, tuple(wanted), say, live
        self.started: dict[str, float] = {}
        self._next_sign: dict[str, float] = {}
        self._open = ""  # the stage whose line has no end yet
        self._shown = ""  # the last line of a terminal

    def event(self, event: Mapping[str, Any], now: float) -> None:
        """Say one event; ``now`` is the monotonic time in seconds."""
        name = event["stage"]
        if event["event"] == "started":
            self.started[name], self._next_sign[name] = now, now + FIRST_SIGN_S
            if not self.live:
                self._line(name, "")
            return
        self.started.pop(name, None)
        if event["event"] == "done":
            self._line(name, f" {event['seconds']:.0f} s, {size_text(event['memory'])}\n")
        elif event["event"] == "kept":
            self._line(name, " unchanged, its inputs came out the same\n")
        else:
            detail = "".join(f"  {line}\n" for line in event.get("detail", ()))
            self._line(name, f" failed\n{event['message']}\n{detail}")

    def tick(self, now: float) -> None:
        """Show what is at work: in place at a terminal, else a line a stage and minute."""
        if self.live and self.started:
            parts = [f"{self._head(name)} {now - since:.0f} s" for name, since in self.started.items()]
            signs = [s for name in self.started if (s := sign_of_life(self.run_folder / name))]
            text = ", ".join(parts) + ("  " + signs[-1] if signs else "")
            text = text[: shutil.get_terminal_size().columns - 1]
            if text != self._shown:
                self.say(CLEAR + text)
                self._shown = text
        if not self.live:
            for name, since in self.started.items():
                if now >= self._next_sign[name]:
                    self._next_sign[name] = now + NEXT_SIGN_S
                    self._line(
                        name, f" {now - since:.0f} s so far  {sign_of_life(self.run_folder / name)}".rstrip() + "\n"
                    )

    def end(self, returncode: int = 0) -> None:
        """Close the last line; say so where Snakemake was killed, or a stage that had started never ended."""
        self.say(CLEAR if self.live else "\n" if self._open else "")
        self._open = ""
        if returncode < 0:
            self.say(f"Snakemake was ended by signal {-returncode}\n")
        for name in self.started:
            self.say(f"stage {name} ended without a word: it was killed, or memory or room on the disk ran out\n")

    def _head(self, name: str) -> str:
        return f"[{self.wanted.index(name) + 1}/{len(self.wanted)}] {name} ..."

    def _line(self, name: str, text: str) -> None:
        """Write ``text`` on the line of a stage; without a newline at its end, the line stays open."""
        if self.live:
            self.say(CLEAR)
            self._shown = ""
        elif self._open and (self._open != name or not text):
            self.say("\n")
        if self._open != name or not text:
            self.say(self._head(name))
        self.say(text)
        self._open = "" if text.endswith("\n") else name


def follow(process: subprocess.Popen[bytes], events: Path, follower: Follower) -> int:
    """Say what happens while ``process`` (Snakemake) runs, from the file of events; returns its exit code."""
    rest = ""
    with open(events, encoding="utf-8", errors="replace") as file:
        while True:
            ended = process.poll() is not None
            *lines, rest = (rest + file.read()).split("\n")
            for event in whole_events(lines):
                follower.event(event, time.monotonic())
            if ended:
                follower.end(process.returncode)
                return process.returncode
            follower.tick(time.monotonic())
            time.sleep(0.2)


def whole_events(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The events of these lines; a line that is none was cut off by a full disk, and its stage says nothing."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)
