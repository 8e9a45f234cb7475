"""DinoBloom as published: the same numbers as an independent implementation, and nothing else taken for it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from cytolib import dinobloom, timm_models, weights
from cytolib.encoders import get_encoder
from tests.dinobloom_files import ONE_BLOCK, refusal, saved, tensors
from tests.golden import make_dinobloom as golden

EXPECTED = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
TOLERANCE = 1e-5  # for vectors of order 1


@pytest.fixture(scope="module")
def cell() -> Image.Image:
    return Image.fromarray(golden.picture())


@pytest.fixture(scope="module")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights") / "DinoBloom-S.pth", tensors())


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["s", "b", "l", "g"])
def test_golden_cls_embedding(size: str, tmp_path: Path, cell: Image.Image) -> None:
    """S and B whole; L and G at full width with 3 and 2 blocks (whole, they were compared once: 2.3e-6 and 5.6e-6)."""
    depth = EXPECTED["depth"][size]
    path = saved(tmp_path / "checkpoint.pth", tensors(size, depth))
    name = f"dinobloom-{size}" if depth == EXPECTED["full_depth"][size] else f"dinobloom-{size}?depth={depth}"
    model, transform = get_encoder(name, weights=path, precision="float32")
    path.unlink()  # up to 350 MB
    embedded = model([transform(cell)])
    assert embedded.shape == (1, model.dim) == (1, golden.SHAPES[size][0])
    assert np.abs(embedded[0] - np.array(EXPECTED["cls"][size])).max() <= TOLERANCE
    assert model.image_size == 224 and model.metadata["image_size"] == "224"


def test_golden_file_is_what_its_script_computes() -> None:
    assert EXPECTED["depth"] == golden.GOLDEN_DEPTH and EXPECTED["seed"] == golden.SEED
    for size in ("s", "g"):  # the plain feed-forward layer and SwiGLU
        computed = golden.cls_embedding(size, EXPECTED["depth"][size])
        assert np.allclose(computed, EXPECTED["cls"][size], rtol=0, atol=1e-8)


def test_more_or_fewer_blocks_are_refused(one_block: Path) -> None:
    refusal(lambda: get_encoder("dinobloom-s?depth=2", weights=one_block), "DinoBloom-S.pth", "14 missing", "blocks.1")
    refusal(lambda: get_encoder("dinobloom-s", weights=one_block), "DinoBloom-S.pth", "keys do not fit")


def model_of(size: str, folder: Path) -> torch.nn.Module:
    depth = EXPECTED["depth"][size]
    located = weights.locate(saved(folder / f"{size}.pth", tensors(size, depth)))
    name = f"dinobloom-{size}"
    built = timm_models.build(name, dinobloom.ARCHITECTURES[name], {"depth": depth}, located, 224, True)
    located[0].unlink()
    return built.model.cpu()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.nn.Module]:
    return {size: model_of(size, tmp_path_factory.mktemp("models")) for size in ("s", "g")}


def wider_epsilon(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6
            module.eps = 1e-5


def tanh_gelu(model: torch.nn.Module) -> None:
    for block in model.blocks:
        block.mlp.act = torch.nn.GELU(approximate="tanh")


def no_layer_scale(model: torch.nn.Module) -> None:
    for block in model.blocks:
        block.ls2 = torch.nn.Identity()


def swapped_halves(model: torch.nn.Module) -> None:
    for block in model.blocks:
        for tensor in block.mlp.fc1.parameters():
            tensor.data = torch.cat(tensor.data.chunk(2)[::-1])


@pytest.mark.parametrize(
    ("size", "mutate", "at_least"),
    [("s", wider_epsilon, 1e-4), ("s", tanh_gelu, 1e-4), ("s", no_layer_scale, 0.1), ("g", swapped_halves, 0.1)],
)
def test_golden_numbers_notice(
    size: str,
    mutate: Callable[[torch.nn.Module], None],
    at_least: float,
    models: dict[str, torch.nn.Module],
    cell: Image.Image,
    one_block: Path,
) -> None:
    """A golden file that a wrong network passes would prove nothing."""
    transform = get_encoder(ONE_BLOCK, weights=one_block)[1]
    model = copy.deepcopy(models[size])
    mutate(model)
    with torch.inference_mode():
        found = model(transform(cell)[None])[0].numpy()
    assert np.abs(found - np.array(EXPECTED["cls"][size])).max() > at_least


def test_transform(one_block: Path, cell: Image.Image) -> None:
    """224 px by Lanczos, ImageNet's mean and standard deviation; it goes to worker processes by pickle."""
    model, transform = get_encoder(ONE_BLOCK, weights=one_block)
    pixels = (golden.picture() / 255 - golden.MEAN) / golden.STD
    assert np.allclose(transform(cell).numpy(), pixels.transpose(2, 0, 1), atol=1e-6)
    wide = cell.resize((363, 360))
    by_hand = np.asarray(wide.resize((224, 224), Image.Resampling.LANCZOS))
    assert torch.equal(transform(wide), transform(Image.fromarray(by_hand)))
    assert "224 x 224 (lanczos, no crop)" in model.metadata["transform"]
    for again in (transform, get_encoder("morphometry")[1]):
        assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(again))(cell)), np.asarray(again(cell)))


# --- what is no DinoBloom checkpoint ----------------------------------------------------------------------------------


def without(teacher: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in teacher.items() if key not in keys}


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "plain DINOv2": (
        lambda t: {"teacher": t | {"backbone.pos_embed": torch.zeros(1, 1370, 384)}},
        ["position table has 1370 entries", "257", "DinoBloom-S.pth", "dinov2-s"],
    ),
    "registers": (
        lambda t: {"teacher": t | {"backbone.register_tokens": torch.zeros(1, 4, 384)}},
        ["4 register tokens", "has none", "give DinoBloom-S.pth"],
    ),
    "a ResNet": (
        lambda t: timm.create_model("resnet10t", pretrained=False).state_dict(),
        ["no DinoBloom checkpoint", "conv1.0.weight", "give DinoBloom-S.pth"],
    ),
    "an unknown tensor": (
        lambda t: {"teacher": t | {"backbone.adapter.weight": torch.zeros(3)}},
        ["0 missing", "1 unknown, first ['adapter.weight']", "give the weights"],
    ),
    "an unknown head": (
        lambda t: {"teacher": t | {"koleo_head.weight": torch.zeros(3)}},
        ["1 unknown, first ['koleo_head.weight']"],
    ),
    "a tensor too few": (
        lambda t: {"teacher": without(t, "backbone.norm.bias")},
        ["1 missing, first ['norm.bias']"],
    ),
    "another shape": (
        lambda t: {"teacher": t | {"backbone.norm.bias": torch.zeros(3)}},
        ["norm.bias has shape (3,)", "expects (384,)"],
    ),
    "no tensor": (lambda t: {"teacher": t | {"backbone.norm.bias": "text"}}, ["norm.bias has shape str"]),
    "a teacher that is none": (lambda t: {"teacher": torch.zeros(3)}, ["'teacher' is a Tensor"]),
    "no dictionary": (lambda t: torch.zeros(3), ["holds a Tensor", "state_dict"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_checkpoints(kind: str, tmp_path: Path) -> None:
    change, words = REFUSED[kind]
    path = tmp_path / "given.pth"
    torch.save(change(tensors()), path)
    refusal(lambda: get_encoder(ONE_BLOCK, weights=path), "given.pth", *words)


def test_another_size_is_named(one_block: Path) -> None:
    words = ["DinoBloom-S.pth", "384 wide", "expects 768", "use encoder 'dinobloom-s'", "give DinoBloom-B.pth"]
    refusal(lambda: get_encoder("dinobloom-b?depth=1", weights=one_block), *words)


class Touch:
    """What a malicious pickle does: it calls a function of its choice when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path, witness = tmp_path / "given.pth", tmp_path / "it ran"
    torch.save({"teacher": tensors() | {"backbone.extra": Touch(witness)}}, path)
    refusal(
        lambda: get_encoder(ONE_BLOCK, weights=path), "given.pth", "more than plain tensors", "it calls", "save its"
    )
    assert not witness.exists()


def test_a_torn_file_is_refused(tmp_path: Path, one_block: Path) -> None:
    torn = tmp_path / "torn.pth"
    torn.write_bytes(one_block.read_bytes()[:100_000])
    refusal(lambda: get_encoder(ONE_BLOCK, weights=torn), "torn.pth", "not a readable weights file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dinobloom-s?image_size=518", ["image_size is 518", "224 px", "257 positions", "leave image_size out"]),
        ("dinobloom-g?image_size=448", ["image_size is 448"]),
        ("dinobloom-s?img_size=518", ["option 'img_size' is unknown", "depth, mean, std, interpolation"]),
        ("dinobloom-s?dynamic_img_size=True", ["option 'dynamic_img_size' is unknown"]),
        ("dinobloom-s?weights_sha256=abc", ["weights_sha256 is 'abc'", "64 hexadecimal digits"]),
        ("dinobloom-s?weights=hf-hub:nonsense", ["'hf-hub:nonsense'", "hf-hub:<owner>/<repository>"]),
        ("timm:hf-hub:1aurent/vit_small_patch14_224.dinobloom", ["518 px", "use dinobloom-s", "weights=hf-hub:1aur"]),
        ("dinobloom-x", ["unknown; expected one of", "dinobloom-g"]),
        (f"timm:test_vit?weights_sha256={'0' * 64}", ["weights_sha256 is given without weights"]),
    ],
)
def test_refused_requests(name: str, words: list[str]) -> None:
    refusal(lambda: get_encoder(name), *words)


def test_a_missing_file_is_named() -> None:
    refusal(
        lambda: get_encoder("dinobloom-s", weights="nowhere.pth"), "nowhere.pth is missing", error=FileNotFoundError
    )
