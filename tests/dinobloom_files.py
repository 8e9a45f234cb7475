"""Files in DinoBloom's layout for the tests, and the check that a refusal is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import make_dinobloom as golden

ONE_BLOCK = "dinobloom-s?depth=1"  # the encoder that a checkpoint of one block fits


def tensors(size: str = "s", depth: int = 1) -> dict[str, torch.Tensor]:
    """The golden recipe's teacher: backbone, heads and mask_token, as a DinoBloom file has them."""
    return {key: torch.from_numpy(value) for key, value in golden.checkpoint(size, depth)["teacher"].items()}


def saved(path: Path, teacher: dict[str, Any]) -> Path:
    torch.save({"teacher": teacher}, path)
    return path


def refusal(call: Callable[[], Any], *words: str, error: type[Exception] = ValueError) -> None:
    """``call`` is refused in one sentence that has all the ``words``."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    assert all(word in message for word in words), message
