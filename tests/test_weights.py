"""Weights from a URL and from a hub: complete or not at all, checked ever after, at the size they were trained at."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from cytolib import dinobloom, run, weights
from cytolib.encoders import get_encoder
from cytolib.exposure import encoder_exposure
from tests.dinobloom_files import ONE_BLOCK, refusal, saved, tensors
from tests.golden import make_dinobloom as golden


@pytest.fixture(scope="module")
def cell() -> Image.Image:
    return Image.fromarray(golden.picture())


@pytest.fixture(scope="module")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights") / "DinoBloom-S.pth", tensors())


# --- from a URL -------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives ``server.body`` for every path but /missing…; ``server.cut`` bytes too few of it if asked to."""

    def do_GET(self) -> None:  # noqa: N802 (the name http.server calls)
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body, cut = self.server.body, self.server.cut  # type: ignore[attr-defined]
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(one_block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server on this machine that stands for Zenodo, with a cache of its own."""
    monkeypatch.setenv("CYTOLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(weights, "_WAIT_S", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.body, running.cut, running.asked = one_block.read_bytes(), 0, []  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(dinobloom, "RECORD", address)
        running.address = address  # type: ignore[attr-defined]
        yield running
        running.shutdown()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "weights").rglob("*") if path.is_file()]


def test_published_weights_are_fetched_once(server: Any, one_block: Path) -> None:
    first, _ = get_encoder(ONE_BLOCK)
    second, _ = get_encoder(f"{ONE_BLOCK}&weights={server.address}/DinoBloom-S.pth?download=1")
    assert server.asked == ["/DinoBloom-S.pth?download=1"]
    from_file, _ = get_encoder(ONE_BLOCK, weights=one_block)
    assert first.metadata["weights_sha256"] == run.sha256(one_block)
    assert first.fingerprint == second.fingerprint == from_file.fingerprint  # where it came from decides nothing


def test_default_address_is_the_authors_record() -> None:
    published = "https://zenodo.org/records/10908163/files/DinoBloom-G.pth?download=1"
    assert dinobloom.url("dinobloom-g") == published


def test_changed_download_is_refused(server: Any, tmp_path: Path) -> None:
    get_encoder(ONE_BLOCK)
    (file,) = [path for path in cached(tmp_path) if path.suffix == ".pth"]
    file.write_bytes(file.read_bytes() + b"x")
    refusal(lambda: get_encoder(ONE_BLOCK), "DinoBloom-S.pth", "when it was downloaded", "delete it")
    file.unlink()
    get_encoder(ONE_BLOCK)  # what the sentence says to do helps


def test_checksum_that_was_asked_for(server: Any, one_block: Path) -> None:
    digest = run.sha256(one_block)
    get_encoder(f"{ONE_BLOCK}&weights_sha256={digest.upper()}")
    wrong = "0" * 64
    refusal(lambda: get_encoder(f"{ONE_BLOCK}&weights_sha256={wrong}"), "DinoBloom-S.pth", digest, wrong)


def test_a_torn_download_never_gets_the_name(server: Any, tmp_path: Path) -> None:
    server.cut = 1000
    refusal(lambda: get_encoder(ONE_BLOCK), f"weights not downloaded: {server.address}/DinoBloom-S.pth", "weights=FILE")
    assert not [path for path in cached(tmp_path) if path.suffix == ".pth"]
    server.cut = 0
    get_encoder(ONE_BLOCK)


def test_no_such_page_and_no_network(server: Any, tmp_path: Path) -> None:
    url = f"{server.address}/missing.pth"
    refusal(lambda: get_encoder(ONE_BLOCK, weights=url), url, "404", "weights=FILE")
    server.shutdown()
    server.server_close()
    refusal(lambda: get_encoder(ONE_BLOCK), "weights not downloaded", "DinoBloom-S.pth", "weights=FILE")
    assert not cached(tmp_path)


# --- from a hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """hub(repository, tensors, config) puts a repository into an empty hub cache, as a download would have."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repository: str, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        (snapshot / "config.json").write_text(json.dumps(config))
        save_file(state, snapshot / "model.safetensors")

    return put


def copy_config(size: int, architecture: str = "vit_small_patch14_dinov2") -> dict[str, Any]:
    """What the hub copies of DinoBloom say of themselves: DINOv2's 518 px."""
    pretrained = {"tag": "dinobloom", "input_size": [3, size, size], "fixed_input_size": True, "num_classes": 0}
    pretrained |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bicubic"}
    return {"architecture": architecture, "num_classes": 0, "pretrained_cfg": pretrained}


def timm_keys(one_block: Path) -> dict[str, torch.Tensor]:
    return dinobloom.backbone("dinobloom-s", one_block, torch.load(one_block, weights_only=True))


COPY = "1aurent/vit_small_patch14_224.dinobloom"


def test_hub_copy_runs_at_224_whatever_it_says(hub: Callable[..., None], one_block: Path, cell: Image.Image) -> None:
    hub(COPY, timm_keys(one_block), copy_config(518))
    model, transform = get_encoder(ONE_BLOCK, weights=f"hf-hub:{COPY}")
    reference, _ = get_encoder(ONE_BLOCK, weights=one_block)
    batch = [transform(cell)]
    assert batch[0].shape == (3, 224, 224) and model.image_size == 224
    assert np.array_equal(model(batch), reference(batch))
    named, _ = get_encoder(ONE_BLOCK, weights=f"hf-hub:{COPY}@main/model.safetensors")
    assert named.fingerprint == model.fingerprint


def test_hub_traps_are_refused(hub: Callable[..., None], one_block: Path) -> None:
    resampled = timm_keys(one_block) | {"pos_embed": torch.zeros(1, 1370, 384)}
    hub("someone/resampled", resampled, copy_config(518))
    refusal(lambda: get_encoder(ONE_BLOCK, weights="hf-hub:someone/resampled"), "1370 entries", "257", "518 px")
    hub("someone/base", timm_keys(one_block), copy_config(518, "vit_base_patch14_dinov2"))
    words = ["hf-hub:someone/base", "'vit_base_patch14_dinov2'", "expects 'vit_small_patch14_dinov2'"]
    refusal(lambda: get_encoder(ONE_BLOCK, weights="hf-hub:someone/base"), *words)
    hub("someone/list", timm_keys(one_block), [])  # type: ignore[arg-type]
    refusal(lambda: get_encoder(ONE_BLOCK, weights="hf-hub:someone/list"), "config.json", "expected an object")
    refusal(
        lambda: get_encoder(ONE_BLOCK, weights="hf-hub:no/where"), "hf-hub:no/where", "no connection", "weights=FILE"
    )


# --- plain DINOv2, to compare with ------------------------------------------------------------------------------------


def test_dinov2_at_224_says_that_it_resampled(hub: Callable[..., None], tmp_path: Path, cell: Image.Image) -> None:
    torch.manual_seed(0)
    original = timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=1).eval()
    torch.nn.init.normal_(original.pos_embed, std=0.1)
    hub("timm/vit_small_patch14_dinov2.lvd142m", original.state_dict(), copy_config(518))
    model, transform = get_encoder("dinov2-s?depth=1", precision="float32")
    batch = [transform(cell)]
    assert batch[0].shape == (3, 224, 224) and "224 x 224 (bicubic" in model.metadata["transform"]
    assert "resampled from 37 x 37 to 16 x 16" in model.metadata["positions"]
    path = tmp_path / "dinov2.pth"  # as its authors publish it
    torch.save(original.state_dict() | {"mask_token": torch.zeros(1, 384)}, path)
    from_file, _ = get_encoder("dinov2-s?depth=1", weights=path, precision="float32")
    assert np.array_equal(from_file(batch), model(batch))
    assert from_file.metadata["positions"] == model.metadata["positions"]
    original.set_input_size(img_size=224)  # timm's own resampling
    with torch.inference_mode():
        assert np.abs(model(batch) - original(batch[0][None]).numpy()).max() < 1e-5
    trained_size, transform = get_encoder("dinov2-s?depth=1", image_size=518)
    assert transform(cell).shape == (3, 518, 518) and "positions" not in trained_size.metadata


@pytest.mark.parametrize(
    ("encoder", "dataset", "exposure"),
    [
        ("morphometry?image_size=64", "matek", "none"),
        ("dinobloom-b?interpolation=lanczos", "matek", "unlabelled images"),
        ("dinobloom-s", "bmc", "unlabelled images"),
        ("dinobloom-s", "pbc", "unknown"),
        ("dinobloom-s", "phantoms", "none"),
        ("dinov2-s", "pbc", "unknown"),
        ("timm:mobilenetv2_100.ra_in1k?pad_type=same", "pbc", "none"),
        ("timm:mobilenetv2_100", "pbc", "unknown"),
        ("timm:vit_small_patch16_224.augreg_in21k_ft_in1k", "pbc", "unknown"),
    ],
)
def test_exposure(encoder: str, dataset: str, exposure: str) -> None:
    assert encoder_exposure(encoder, dataset) == exposure
