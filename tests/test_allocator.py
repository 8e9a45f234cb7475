"""The allocator's setting: there while it is wanted, gone afterwards, whoever else asked for it."""

from __future__ import annotations

import pytest

from cytolib import allocator


class Library:
    """Notes what the C library is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> int:
        self.told.append((option, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    fake = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: fake)
    return fake


def test_set_once_and_given_back_by_the_last(library: Library) -> None:
    with allocator.freed_memory_kept():
        with pytest.raises(KeyError), allocator.freed_memory_kept():
            raise KeyError("an encoder failed")
        assert library.told == list(allocator._KEEP) and library.trimmed == 0
    assert library.told == [*allocator._KEEP, *allocator._DEFAULT] and library.trimmed == 1
    assert {option for option, _ in allocator._KEEP} == {option for option, _ in allocator._DEFAULT}


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert allocator._glibc() is None
    with allocator.freed_memory_kept():
        pass
