"""Matrix products by oneDNN: as exact as before, and the setting goes back."""

from __future__ import annotations

import pytest
import torch

from cytolib.diffusion import matmul


def test_products_stay_exact_and_the_setting_goes_back() -> None:
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    A, B = torch.randn(512, 256), torch.randn(256, 512)
    with matmul.fast_float32_matmul():
        with matmul.fast_float32_matmul():
            inside = setting.fp32_precision
        assert setting.fp32_precision == inside  # the outer one is still open
        product = A @ B
    assert setting.fp32_precision == before
    assert (product - A.double() @ B.double()).abs().max() < 1e-4


def test_a_processor_that_rounds_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_is_exact", lambda: False)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with matmul.fast_float32_matmul():
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_rounding_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial, on a processor whose products are those of bfloat16."""
    exact = torch.Tensor.__matmul__

    def rounded(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return exact(A, B) if A.dtype == torch.float64 else exact(A.bfloat16(), B.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not matmul._is_exact.__wrapped__()


def test_setting_goes_back_after_an_error() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), matmul.fast_float32_matmul():
        1 / 0  # noqa: B018
    assert torch.backends.mkldnn.matmul.fp32_precision == before
