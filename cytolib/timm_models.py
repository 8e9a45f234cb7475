"""timm models as encoders: built without a head, loaded strictly, at one image size for model and transform."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from cytolib import run

_FILTERS = {name.lower(): Image.Resampling[name] for name in ("BILINEAR", "BICUBIC", "LANCZOS")}
_BATCH_CPU, _BATCH_ACCELERATOR = 8, 64


@dataclass(frozen=True)
class Built:
    """A timm model ready to use: its image size and embedding length checked by one forward pass."""

    model: torch.nn.Module
    image_size: int
    dim: int
    weights_sha256: str


def build(
    name: str,
    architecture: str,
    options: dict[str, Any],
    weights: Path | None,
    image_size: int | None,
    pretrained: bool,
) -> Built:
    """The model ``architecture`` without classifier, in eval mode on ``run.device()``, with weights loaded strictly.

    Raises:
        ValueError: in one sentence, for whatever does not fit: name, options, weights, image size.
    """
    model = _create(name, architecture, options, image_size, pretrained and weights is None)
    if weights is not None:
        _load(name, model, weights)
        digest = run.sha256(weights)
    else:
        digest = _state_sha256(model)
    size = image_size or int(resolve_model_data_config(model)["input_size"][-1])
    model = model.eval().requires_grad_(False).to(run.device())
    try:
        with torch.inference_mode():
            out = model(torch.zeros(1, 3, size, size, device=run.device()))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"encoder {name!r} does not take {size} px images ({_line(error)}); set image_size") from error
    if out.ndim != 2:
        raise ValueError(f"encoder {name!r} gives {tuple(out.shape)} for one cell; expected (1, D): set global_pool")
    return Built(model, size, int(out.shape[1]), digest)


def _create(
    name: str, architecture: str, options: dict[str, Any], image_size: int | None, pretrained: bool
) -> torch.nn.Module:
    if not architecture.startswith("hf-hub:") and not timm.is_model(architecture.split(".")[0]):
        raise ValueError(f"encoder {name!r}: timm has no model {architecture!r}; see timm.list_models()")
    arguments: dict[str, Any] = {"num_classes": 0, "pretrained": pretrained, **options}
    attempts = [arguments]
    if image_size is not None:
        # Both at once: img_size alone leaves the transform of a fixed-size model at its old size (518 px for DINOv2).
        arguments["pretrained_cfg_overlay"] = {"input_size": (3, image_size, image_size)}
        attempts.insert(0, {**arguments, "img_size": image_size})  # convolutional models refuse img_size
    for last, attempt in zip((len(attempts) == 1, True), attempts, strict=False):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # random weights are the same every time
                return timm.create_model(architecture, **attempt)
        except TypeError as error:
            if last:
                raise ValueError(f"encoder {name!r}: timm refuses an option ({_line(error)}); correct it") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"encoder {name!r}: the model could not be made ({_line(error)}); "
                "without a network, give weights=FILE or pretrained=False"
            ) from error
    raise AssertionError("unreachable")


def _load(name: str, model: torch.nn.Module, weights: Path) -> None:
    """Load a file's tensors strictly: timm's keys (classifier dropped) or DINOv2's and DinoBloom's checkpoints."""
    state = _backbone(_read(weights))
    positions = state.get("pos_embed")
    own = model.state_dict()
    if positions is not None and "pos_embed" in own and positions.shape[1] != own["pos_embed"].shape[1]:
        raise ValueError(
            f"{weights}: its position table has {positions.shape[1]} entries and encoder {name!r} at this image size "
            f"{own['pos_embed'].shape[1]}; set image_size to the size it was trained at (DinoBloom: 224)"
        )
    if "mask_token" in state:
        state = checkpoint_filter_fn(state, cast(VisionTransformer, model))
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    state = {key: value for key, value in state.items() if key in own or not key.startswith(prefixes)}
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        raise ValueError(
            f"{weights}: keys do not fit encoder {name!r} ({len(missing)} missing, first {missing[:1]}; "
            f"{len(foreign)} unknown, first {foreign[:1]}); give the weights of that architecture"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ValueError(
                f"{weights}: {key} has shape {tuple(value.shape)}, encoder {name!r} expects {tuple(own[key].shape)}; "
                "give the weights of that architecture"
            )
    model.load_state_dict(state, strict=True)


def _read(weights: Path) -> dict[str, Any]:
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        found = torch.load(weights, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{weights}: not a readable weights file ({_line(error)}); download it again") from error
    except Exception as error:  # torch's own UnpicklingError: code, not tensors
        raise ValueError(f"{weights}: holds more than plain tensors ({_line(error)}); save its state_dict") from error
    if not isinstance(found, dict):
        raise ValueError(f"{weights}: holds a {type(found).__name__}; expected a dictionary of tensors (a state_dict)")
    return found


def _backbone(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The encoder's tensors, out of the wrappings in use: state_dict, model, teacher.backbone (DINOv2, DinoBloom)."""
    for wrapping in ("teacher", "state_dict", "model"):
        if isinstance(found.get(wrapping), dict):
            found = found[wrapping]
    tensors = {key.removeprefix("module."): value for key, value in found.items() if torch.is_tensor(value)}
    inner = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    return inner or tensors


def _state_sha256(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + b"\0" + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def make_transform(
    name: str, built: Built, options: dict[str, str]
) -> tuple[Callable[[Image.Image], torch.Tensor], str]:
    """The transform of a built model, PIL image -> (3, S, S) float32, and its description.

    A direct resize without crop: how much of the field is seen is ``field_of_view``'s business.
    """
    config = resolve_model_data_config(built.model)
    mean = _triple(options["mean"], name, "mean") if "mean" in options else tuple(config["mean"])
    std = _triple(options["std"], name, "std") if "std" in options else tuple(config["std"])
    if min(std) <= 0:
        raise ValueError(f"encoder {name!r}: std is {std}; expected positive numbers")
    interpolation = options.get("interpolation", config["interpolation"])
    if interpolation not in _FILTERS:
        raise ValueError(f"encoder {name!r}: interpolation is {interpolation!r}; expected one of {', '.join(_FILTERS)}")
    size = (built.image_size, built.image_size)
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def transform(image: Image.Image) -> torch.Tensor:
        pixels = np.array(image.convert("RGB").resize(size, _FILTERS[interpolation]), dtype=np.float32)
        return (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - shift) / scale

    described = f"RGB, resized to {size[0]} x {size[1]} ({interpolation}, no crop), mean {mean}, std {std}"
    return transform, described


def _triple(text: str, name: str, option: str) -> tuple[float, float, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise ValueError(f"encoder {name!r}: {option} is {text!r}; expected one number or three with commas")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue


def forward(model: torch.nn.Module) -> Callable[[Any], NDArray[np.float32]]:
    """Batch function of ``model``: (B, 3, S, S) tensor, or a sequence of (3, S, S) -> (B, D) float32 array."""

    def run_batch(batch: Any) -> NDArray[np.float32]:
        cells = batch if torch.is_tensor(batch) else torch.stack(list(batch))
        device = run.device()
        # Every batch is padded to one size: a row's value does not depend on how many cells came with it.
        size = _BATCH_CPU if device.type == "cpu" else _BATCH_ACCELERATOR
        rows = []
        with torch.inference_mode():
            for part in cells.split(size):
                padded = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
                rows.append(model(padded.to(device))[: len(part)].float().cpu())
        return torch.cat(rows).numpy()

    return run_batch


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:200]
