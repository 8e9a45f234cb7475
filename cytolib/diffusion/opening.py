"""What a model folder from elsewhere must be before any of it is loaded: our classes, sound sizes, complete weights.

diffusers alone would import what ``model_index.json`` names, build a network of whatever size a configuration asks for,
and fill tensors that the weights lack with random numbers.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError, safe_open

from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.schedulers import Scheduler
from cytolib.diffusion.standardizer import EmbeddingStandardizer
from cytolib.text import hides, printable, reason, shown

INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
MAX_JSON_BYTES = 10_000_000
#: Largest whole number of each setting: far above any use, far below what fills a machine.
LIMITS: Mapping[str, int] = {
    **{"embedding_dim": 65_536, "components": 65_536, "width": 16_384, "expansion": 64, "depth": 512},
    **{"num_classes": 100_000, "num_domains": 100_000, "num_train_timesteps": 100_000},
}
_PARTS: Mapping[str, type[EmbeddingDenoiser] | type[EmbeddingStandardizer]] = {
    "denoiser": EmbeddingDenoiser,
    "standardizer": EmbeddingStandardizer,
}


def check_folder(folder: Path, class_name: str) -> None:
    """Check a folder in diffusers' layout without running, importing or building anything that it names.

    Args:
        folder: with ``model_index.json``, ``denoiser``, ``standardizer`` and ``scheduler``.
        class_name: the pipeline's class that the index must name.

    Raises:
        FileNotFoundError, ValueError: in one sentence that names the file, for a missing file, another class or module,
            names of classes that are no list of texts, settings that are unknown or out of bounds, weights that are
            missing, more than asked for, of another shape or not finite, or a scale that is not above 0.
    """
    index = _read_json(folder / INDEX)
    _check_index(index, folder, class_name)
    settings = {part: _read_config(folder / part, cls) for part, cls in _PARTS.items()}
    for vocabulary, number in (("id2label", "num_classes"), ("id2domain", "num_domains")):
        names, count = index.get(vocabulary) or {}, settings["denoiser"].get(number, 0)
        if len(names) != count:
            raise ValueError(
                f"{folder / INDEX}: {vocabulary} has {len(names)} names, {number} of the denoiser is {count}; they "
                "must agree: save the model again"
            )
    for part, cls in _PARTS.items():
        _check_weights(folder / part, cls, settings[part])
    _check_scheduler(folder, index["scheduler"][1])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a folder that save_pretrained wrote")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes; expected a short JSON file")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({reason(error)}); save the model again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: it holds a {type(values).__name__}; expected an object")
    return values


def _check_index(index: dict[str, Any], folder: Path, class_name: str) -> None:
    path, named = folder / INDEX, index.get("_class_name")
    if named != class_name and not (isinstance(named, list) and len(named) == 2 and named[1] == class_name):
        raise ValueError(f"{path}: it names the class {shown(named)}; expected {class_name!r}: open it with its own")
    for key in index:
        if key not in (*_PARTS, "scheduler", "id2label", "id2domain") and not key.startswith("_"):
            raise ValueError(f"{path}: unknown part {shown(key)}; expected denoiser, standardizer and scheduler")
    for part in (*_PARTS, "scheduler"):
        pair = index.get(part)
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError(f"{path}: {part} is {shown(pair)}; expected a module and a class")
    for part, cls in _PARTS.items():
        module, name = index[part]
        if name != cls.__name__ or module not in (cls.__module__, f"embedding_{part}"):
            raise ValueError(
                f"{path}: {part} {shown(name)} of {shown(module)}, expected {cls.__name__} of {cls.__module__}; "
                "nothing was imported"
            )
    library, name = index["scheduler"]
    scheduler = getattr(diffusers, name, None) if library == "diffusers" and name.isidentifier() else None
    if not (isinstance(scheduler, type) and issubclass(scheduler, Scheduler)):
        raise ValueError(f"{path}: scheduler {shown(name)} of {shown(library)}, expected one that fits embeddings")
    for vocabulary in ("id2label", "id2domain"):
        names = index.get(vocabulary) or {}
        good = isinstance(names, dict) and names.keys() == {str(k) for k in range(len(names))}
        if not good or any(not isinstance(text, str) or not text or hides(text) for text in names.values()):
            raise ValueError(f'{path}: {vocabulary} is {shown(names)}; expected {{"0": name, "1": name, ...}}')


def _read_config(folder: Path, cls: type[Any]) -> dict[str, Any]:
    """The settings of a part, each one that its class knows, whole numbers within ``LIMITS``."""
    path = folder / "config.json"
    settings = {key: value for key, value in _read_json(path).items() if not key.startswith("_")}
    known = inspect.signature(cls.__init__).parameters
    for key, value in settings.items():
        if key not in known or key == "self":
            raise ValueError(f"{path}: unknown setting {shown(key)}; expected only those of {cls.__name__}")
        _check_number(key, value, path)
    return settings


def _check_number(key: str, value: Any, path: Path) -> None:
    if key in LIMITS and (type(value) is not int or not 0 <= value <= LIMITS[key]):
        raise ValueError(f"{path}: {key} is {shown(value)}; expected a whole number of 0 to {LIMITS[key]:,}")


def _check_weights(folder: Path, cls: type[Any], settings: dict[str, Any]) -> None:
    path = folder / WEIGHTS
    if list(folder.glob("*.index.json")):
        raise ValueError(f"{folder}: its weights are cut into several files; expected one, {WEIGHTS}")
    if not path.is_file():
        others = ", ".join(sorted(printable(p.name) for p in folder.glob("*.bin"))) or "none"
        raise FileNotFoundError(f"{path}: no such file; expected safetensors (pickles are not opened, here: {others})")
    try:
        with torch.device("meta"):  # shapes without memory
            expected = {name: tuple(t.shape) for name, t in cls(**settings).state_dict().items()}
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: no model can be made of it ({reason(error)}); save it again"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _compare(expected, found, path)
            for name in expected:
                _check_values(name, file.get_tensor(name), path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({reason(error)}); save the model again") from error


def _compare(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], path: Path) -> None:
    missing, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or foreign:
        raise ValueError(
            f"{path}: {len(missing)} tensors are missing (first {missing[:1]}), {len(foreign)} are unknown (first "
            f"{[printable(name)[:80] for name in foreign[:1]]}); it does not belong to the config.json beside it"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{path}: {name} has shape {found[name]}, config.json asks for {shape}; save it again")


def _check_values(name: str, tensor: torch.Tensor, path: Path) -> None:
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise ValueError(f"{path}: {name} has values that are not finite numbers; train the model again")
    if name in ("scale", "component_scale") and not (tensor > 0).all():
        raise ValueError(f"{path}: {name} has values that are not above 0, as a scale is; save the model again")


def _check_scheduler(folder: Path, name: str) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = _read_json(path)
    for key, value in config.items():
        _check_number(key, value, path)
    if config.get("_class_name", name) != name:
        raise ValueError(f"{path}: it is of {shown(config['_class_name'])}, {INDEX} names {name!r}; save it again")
    try:
        getattr(diffusers, name).from_config(config)
    except Exception as error:  # whatever a scheduler makes of odd settings
        raise ValueError(f"{path}: no scheduler can be made of it ({reason(error)}); save the model again") from error
