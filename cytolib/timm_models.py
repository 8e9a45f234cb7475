"""timm models as encoders: built without a head, loaded strictly, at one image size for model and transform."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg, load_model_config_from_hf
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from cytolib import dinobloom, run, weights
from cytolib.transforms import FILTERS, FRAMINGS, ResizeNormalise


@dataclass(frozen=True)
class Built:
    """A timm model ready to use: its image size and embedding length checked by one forward pass.

    ``positions`` says what was done to the weights' position table, "" where it was taken as it is.
    """

    model: torch.nn.Module
    image_size: int
    dim: int
    weights_sha256: str
    positions: str = ""


def build(
    name: str,
    architecture: str,
    options: dict[str, Any],
    located: tuple[Path, str] | None,
    image_size: int | None,
    pretrained: bool,
    resample: bool = False,
) -> Built:
    """The model ``architecture`` without classifier, in eval mode on ``run.device()``, with weights loaded strictly.

    Args:
        located: weights file and its SHA-256; None for timm's own weights, or random ones.
        resample: fit a file's position table to the image size; otherwise another size is refused.

    Raises:
        ValueError: in one sentence, for whatever does not fit: name, options, weights, image size.
    """
    model = _create(name, architecture, options, image_size, pretrained and located is None)
    size = image_size or int(resolve_model_data_config(model)["input_size"][-1])
    positions = ""
    if located is not None:
        file, digest = located
        positions = _load(name, model, file, resample)
    else:
        digest = _state_sha256(model)
        positions = _resampled_by_timm(architecture, model, size) if pretrained else ""
    model = model.eval().requires_grad_(False).to(run.device())
    try:
        with torch.inference_mode():
            out = model(torch.zeros(1, 3, size, size, device=run.device()))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"encoder {name!r} does not take {size} px images ({weights.first_line(error)}); set image_size"
        ) from error
    if out.ndim != 2:
        raise ValueError(f"encoder {name!r} gives {tuple(out.shape)} for one cell; expected (1, D): set global_pool")
    return Built(model, size, int(out.shape[1]), digest, positions)


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
                raise ValueError(
                    f"encoder {name!r}: timm refuses an option ({weights.first_line(error)}); correct it"
                ) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"encoder {name!r}: the model could not be made ({weights.first_line(error)}); "
                "without a network, give weights=FILE or pretrained=False"
            ) from error
    raise AssertionError("unreachable")


def _load(name: str, model: torch.nn.Module, file: Path, resample: bool) -> str:
    """Load a file's tensors strictly; gives what was done to its position table ("" for nothing).

    Taken are timm's keys (classifier dropped), DINOv2's and DinoBloom's. Another table is resampled only on request.
    """
    found = weights.read_tensors(file)
    if name in dinobloom.ARCHITECTURES:
        _load_strictly(name, model, file, dinobloom.backbone(name, file, found))
        return ""
    state = _backbone(found)
    own = model.state_dict()
    positions, done = state.get("pos_embed"), ""
    if positions is not None and "pos_embed" in own and positions.shape[1] != own["pos_embed"].shape[1]:
        if not resample:
            raise ValueError(
                f"{file}: its position table has {positions.shape[1]} entries and encoder {name!r} at this image size "
                f"{own['pos_embed'].shape[1]}; set image_size to the size it was trained at"
            )
        done = _resampled(_grid(positions.shape[1]), _grid(own["pos_embed"].shape[1]))
    if done or "mask_token" in state:
        state = checkpoint_filter_fn(state, cast(VisionTransformer, model))
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    state = {key: value for key, value in state.items() if key in own or not key.startswith(prefixes)}
    _load_strictly(name, model, file, state)
    return done


def _load_strictly(name: str, model: torch.nn.Module, file: Path, state: Mapping[str, Any]) -> None:
    own = model.state_dict()
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        raise ValueError(
            f"{file}: keys do not fit encoder {name!r} ({len(missing)} missing, first {missing[:1]}; "
            f"{len(foreign)} unknown, first {foreign[:1]}); give the weights of that architecture"
        )
    for key, value in state.items():
        shape = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
        if shape != tuple(own[key].shape):
            raise ValueError(
                f"{file}: {key} has shape {shape}, encoder {name!r} expects {tuple(own[key].shape)}; "
                "give the weights of that architecture"
            )
    weights.check_finite(file, state)
    model.load_state_dict(state, strict=True)


def _backbone(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The encoder's tensors, out of the wrappings in use: state_dict, model, teacher with backbone (DINOv2)."""
    for wrapping in ("teacher", "state_dict", "model"):
        if isinstance(found.get(wrapping), dict):
            found = found[wrapping]
    tensors = {key.removeprefix("module."): value for key, value in found.items() if torch.is_tensor(value)}
    inner = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    return inner or tensors


def _resampled_by_timm(architecture: str, model: torch.nn.Module, size: int) -> str:
    """What timm did to the position table of the weights that it fetched: it resamples without a word."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if getattr(model, "pos_embed", None) is None or patch is None:
        return ""
    if architecture.startswith(weights.HUB):
        trained = int(load_model_config_from_hf(architecture.removeprefix(weights.HUB))[0]["input_size"][-1])
    else:
        config = get_pretrained_cfg(architecture)
        trained = int(config.input_size[-1]) if config is not None else size
    return "" if trained == size else _resampled(trained // patch[0], size // patch[0])


def _grid(positions: int) -> int:
    return math.isqrt(positions)  # prefix tokens are fewer than what makes the next square


def _resampled(before: int, after: int) -> str:
    return f"position table resampled from {before} x {before} to {after} x {after} (bicubic, antialiased)"


def _state_sha256(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + b"\0" + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def make_transform(name: str, built: Built, options: dict[str, str]) -> tuple[ResizeNormalise, str]:
    """The transform of a built model and its description: the model's own mean and std, unless ``options`` has them."""
    config = resolve_model_data_config(built.model)
    mean = _triple(options["mean"], name, "mean") if "mean" in options else tuple(config["mean"])
    std = _triple(options["std"], name, "std") if "std" in options else tuple(config["std"])
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ValueError(f"encoder {name!r}: std is {std}, mean is {mean}; expected numbers, std above 0")
    interpolation = options.get("interpolation", config["interpolation"])
    if interpolation not in FILTERS:
        raise ValueError(f"encoder {name!r}: interpolation is {interpolation!r}; expected one of {', '.join(FILTERS)}")
    framing = options.get("framing", "whole")
    if framing not in FRAMINGS:
        raise ValueError(f"encoder {name!r}: framing is {framing!r}; expected one of {', '.join(FRAMINGS)}")
    transform = FRAMINGS[framing](built.image_size, interpolation, mean, std)
    return transform, str(transform)


def untrained(architecture: str) -> dict[str, torch.Tensor]:
    """Tensors of an architecture without classifier as it is before any training, the same every time."""
    return _create(architecture, architecture, {}, None, False).state_dict()


def _triple(text: str, name: str, option: str) -> tuple[float, float, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise ValueError(f"encoder {name!r}: {option} is {text!r}; expected one number or three with commas")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue
