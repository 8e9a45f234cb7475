"""Encoders: the right weights at the right size with the right transform, or one sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from cytolib import encoders
from cytolib.data.phantoms import draw_cell
from cytolib.encoders import get_encoder
from cytolib.framing import cell_window, source_sha256
from cytolib.morphometry import FEATURE_NAMES, extract

TINY_CNN = "mobilenetv3_small_050"
TINY_VIT = "test_vit"  # timm's own test model, 160 px


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(draw_cell("eosinophil", "site_a", seed).image)


def saved(folder: Path, architecture: str, **options: object) -> tuple[torch.nn.Module, Path]:
    """A timm model with random weights and a head, and the file that holds them."""
    torch.manual_seed(1)
    model = timm.create_model(architecture, pretrained=False, **options).eval()
    path = folder / f"{architecture}.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_morphometry_encoder() -> None:
    model, transform = get_encoder("morphometry")
    image = picture()
    embedded = model([transform(image), transform(picture(1))])
    assert embedded.shape == (2, model.dim) == (2, len(FEATURE_NAMES)) and embedded.dtype == np.float32
    assert np.array_equal(embedded[0], extract(np.asarray(image)))
    assert model.metadata["weights_sha256"] == "none" and model.metadata["image_size"] == str(model.image_size)


def test_morphometry_size_is_part_of_the_fingerprint() -> None:
    small, transform = get_encoder("morphometry?image_size=64")
    assert transform(picture()).shape == (64, 64, 3)
    assert small.fingerprint == get_encoder("morphometry", image_size=64)[0].fingerprint
    assert small.fingerprint != get_encoder("morphometry")[0].fingerprint


def test_source_code_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_encoder("morphometry")[0].fingerprint
    monkeypatch.setattr(encoders.run, "sha256", lambda path: "edited")
    assert get_encoder("morphometry")[0].fingerprint != before


def test_timm_weights_from_a_file(tmp_path: Path) -> None:
    original, path = saved(tmp_path, TINY_CNN)
    model, transform = get_encoder(f"timm:{TINY_CNN}?mean=0.5&std=0.25", weights=path, image_size=64)
    cell = transform(picture())
    assert cell.shape == (3, 64, 64) and cell.dtype == torch.float32
    pixels = np.asarray(picture().resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32).transpose(2, 0, 1)
    assert np.allclose(cell.numpy(), (pixels / 255 - 0.5) / 0.25, atol=1e-5)
    with torch.no_grad():
        wanted = original.forward_head(original.forward_features(cell[None]), pre_logits=True).numpy()
    embedded = model([cell])
    assert embedded.shape == (1, model.dim)
    assert np.allclose(embedded, wanted, atol=1e-4)
    assert model.metadata["weights_sha256"] == encoders.run.sha256(path)
    assert str(tmp_path) not in str(model.metadata)  # the same bytes elsewhere are the same encoder


def test_framing_shows_the_window_of_the_cell() -> None:
    name = f"timm:{TINY_CNN}?image_size=64&mean=0&std=1"
    whole, to_whole = get_encoder(name, pretrained=False)
    cell, to_cell = get_encoder(f"{name}&framing=cell", pretrained=False)
    seen = to_cell(picture()).movedim(0, -1).mul(255).round().to(torch.uint8).numpy()
    assert np.array_equal(seen, cell_window(picture(), 64))
    assert not np.array_equal(to_whole(picture()), to_cell(picture()))
    assert cell.fingerprint != whole.fingerprint and "window of the cell" in cell.metadata["transform"]
    assert cell.metadata["source_sha256"] == source_sha256() and "source_sha256" not in whole.metadata
    assert np.array_equal(cell([to_cell(picture())]), whole([to_cell(picture())]))  # the same network


def test_torch_file_and_options_in_the_name_give_the_same(tmp_path: Path) -> None:
    original, path = saved(tmp_path, TINY_CNN)
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}, "epoch": 3}, wrapped)
    first, transform = get_encoder(f"timm:{TINY_CNN}", weights=path, image_size=64)
    second, _ = get_encoder(f"timm:{TINY_CNN}?weights={wrapped}&image_size=64")
    batch = [transform(picture(k)) for k in range(3)]
    assert np.array_equal(first(batch), second(batch))


def test_evaluation_mode_no_gradients_and_rows_independent_of_the_batch() -> None:
    model, transform = get_encoder(f"timm:{TINY_CNN}", image_size=64, pretrained=False)
    batch = torch.stack([transform(picture(k)) for k in range(5)])
    whole = model(batch)
    assert np.array_equal(whole, model(batch))  # no dropout, no running statistics
    assert np.array_equal(whole, np.concatenate([model(batch[:2]), model(batch[2:])]))


def test_random_weights_are_the_same_every_time() -> None:
    state = torch.get_rng_state()
    first = get_encoder(f"timm:{TINY_CNN}", image_size=64, pretrained=False)[0]
    assert torch.equal(state, torch.get_rng_state())  # and leave the caller's generator alone
    torch.manual_seed(5)
    assert first.fingerprint == get_encoder(f"timm:{TINY_CNN}", image_size=64, pretrained=False)[0].fingerprint


def test_fixed_size_model_and_transform_agree() -> None:
    """DINOv2 in timm defaults to 518 px; asked for 224 px, both the model and the transform must be at 224."""
    model, transform = get_encoder("timm:vit_small_patch14_dinov2?depth=1", image_size=56, pretrained=False)
    assert model.image_size == 56 and transform(picture()).shape == (3, 56, 56)
    assert model([transform(picture())]).shape == (1, 384)
    default, transform = get_encoder(f"timm:{TINY_VIT}", pretrained=False)
    assert transform(picture()).shape[-1] == default.image_size == 160


def dinobloom_file(folder: Path, size: int = 224) -> tuple[torch.nn.Module, Path]:
    """A checkpoint in DinoBloom's layout (teacher, backbone., heads, mask_token) with random weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=size, depth=2).eval()
    teacher = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    teacher |= {"backbone.mask_token": torch.zeros(1, 384), "dino_head.mlp.0.weight": torch.zeros(2, 2)}
    path = folder / "DinoBloom-S.pth"
    torch.save({"teacher": teacher}, path)
    return model, path


def test_dinobloom_layout_is_read(tmp_path: Path) -> None:
    original, path = dinobloom_file(tmp_path)
    model, transform = get_encoder("dinobloom-s?depth=2", weights=path)
    cell = transform(picture())
    assert cell.shape == (3, 224, 224) and "lanczos" in model.metadata["transform"]
    with torch.no_grad():
        assert np.allclose(model([cell]), original(cell[None]).numpy(), atol=1e-5)


def test_weights_of_another_size_are_not_resampled_silently(tmp_path: Path) -> None:
    _, path = dinobloom_file(tmp_path)
    with pytest.raises(ValueError, match="position table has 257 entries"):
        get_encoder("timm:vit_small_patch14_dinov2?depth=2", weights=path, image_size=112)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("resnet", {}, ValueError, "unknown; expected one of cytolib-small, morphometry"),
        ("timm:", {}, ValueError, "unknown"),
        ("timm:no_such_net", {}, ValueError, "timm has no model 'no_such_net'"),
        ("morphometry?depth=3", {}, ValueError, "no option but image_size"),
        ("morphometry?image_size=big", {}, ValueError, "image_size is 'big'"),
        ("morphometry", {"image_size": 8}, ValueError, "at least 32"),
        (f"timm:{TINY_CNN}", {"weights": "nowhere.safetensors"}, FileNotFoundError, "nowhere.safetensors is missing"),
        (f"timm:{TINY_CNN}?colour=red", {"pretrained": False}, ValueError, "colour"),
        (f"timm:{TINY_CNN}?mean=a", {"pretrained": False}, ValueError, "mean is 'a'"),
        (f"timm:{TINY_CNN}?std=0", {"pretrained": False}, ValueError, "std is"),
        (
            f"timm:{TINY_CNN}?framing=half",
            {"pretrained": False},
            ValueError,
            "framing is 'half'; expected one of whole",
        ),
        (f"timm:{TINY_CNN}?interpolation=nearest", {"pretrained": False}, ValueError, "interpolation is 'nearest'"),
        (f"timm:{TINY_VIT}", {"image_size": 33, "pretrained": False}, ValueError, "33"),
    ],
)
def test_refusals_are_one_sentence(name: str, arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        get_encoder(name, **arguments)
    assert "\n" not in str(caught.value)


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    _, other = saved(tmp_path, "mobilenetv3_small_075")
    with pytest.raises(ValueError, match=r"has shape .* expects|keys do not fit"):
        get_encoder(f"timm:{TINY_CNN}", weights=other)
    _, other = saved(tmp_path, TINY_VIT)
    with pytest.raises(ValueError, match="keys do not fit"):
        get_encoder(f"timm:{TINY_CNN}", weights=other)
    for suffix in ("safetensors", "pth"):
        broken = tmp_path / f"broken.{suffix}"
        broken.write_bytes(b"not weights")
        with pytest.raises(ValueError, match="broken"):
            get_encoder(f"timm:{TINY_CNN}", weights=broken)
    code = tmp_path / "code.pth"
    torch.save({"state_dict": Path("x")}, code)
    with pytest.raises(ValueError, match="more than plain tensors"):
        get_encoder(f"timm:{TINY_CNN}", weights=code)


def test_no_network_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="weights=FILE or pretrained=False"):
        get_encoder("timm:mobilenetv2_100")


@pytest.mark.real_data
def test_imagenet_mobilenet_sees_cells(real_data: Path) -> None:
    """Needs pad_type=same: without it the file loads silently and the features are others."""
    path = real_data.parent / "weights" / "mobilenetv2_100_imagenet" / "model.safetensors"
    if not path.is_file():
        pytest.skip(f"REAL WEIGHTS MISSING: no {path.name} in the folder weights/ beside the data")
    model, transform = get_encoder("timm:mobilenetv2_100?pad_type=same&mean=0.5&std=0.5", weights=path)
    assert model.dim == 1280 and model.image_size == 224
    files = [sorted((real_data / "PBC_dataset_normal_DIB" / c).glob("*.jpg"))[:4] for c in ("platelet", "eosinophil")]
    embedded = model([transform(Image.open(file).convert("RGB")) for group in files for file in group])
    centred = embedded - embedded.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = centred @ centred.T
    assert similarity[:4, :4].mean() > 0.1 > -0.1 > similarity[:4, 4:].mean()
    plain = get_encoder("timm:mobilenetv2_100?mean=0.5&std=0.5", weights=path)[0]
    assert plain.fingerprint != model.fingerprint
