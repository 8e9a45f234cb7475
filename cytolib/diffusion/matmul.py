"""Matrix products of float32 on a CPU, by the faster of torch's two libraries.

torch hands them to MKL, which on AMD processors leaves half of the vector unit idle: (512, 256) x (256, 512) takes
1.35 ms on one core of an EPYC, with oneDNN 0.6 ms, to the same accuracy. torch takes oneDNN when it may round products
to bfloat16, which processors with matrix units (AMX) then do. So it is asked for only where a trial shows no rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_ONEDNN = "bf16"
_lock = threading.Lock()
_users, _before = 0, "none"


@contextmanager
def fast_float32_matmul() -> Iterator[None]:
    """While this is open, float32 matrix products on the CPU go to oneDNN, if that is exact on this processor.

    A setting of the whole process, like all of torch's; it goes back to what it was after the last one closes.
    """
    global _users, _before
    setting = _setting()
    if setting is None or not _is_exact():
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _before, setting.fp32_precision = setting.fp32_precision, _ONEDNN
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                setting.fp32_precision = _before


def _setting() -> Any:
    """torch's precision setting of oneDNN's products, or None in a torch without it."""
    return getattr(torch.backends.mkldnn, "matmul", None) if torch.backends.mkldnn.is_available() else None


@cache
def _is_exact() -> bool:
    """Whether oneDNN, allowed to round, does not: its error must be that of float32, 2^-24, and not bfloat16's 2^-8."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        A, B = torch.randn(512, 256), torch.randn(256, 512)
    expected = A.double() @ B.double()
    setting = _setting()
    before = setting.fp32_precision
    setting.fp32_precision = _ONEDNN
    try:
        error = (A @ B - expected).abs().max() / expected.abs().max()
    finally:
        setting.fp32_precision = before
    return bool(error < 1e-5)
