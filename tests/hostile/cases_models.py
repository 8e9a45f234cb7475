"""Model folders and checkpoints: what they name is never imported, what they ask for is never built unseen."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cytolib.diffusion import EmbeddingDenoiser, EmbeddingDiffusionPipeline, EmbeddingStandardizer, train
from cytolib.diffusion.opening import WEIGHTS
from tests.hostile.case import Door, case, line_with
from tests.hostile.payloads import Payload, evil_module

OPEN = "EmbeddingDiffusionPipeline.from_pretrained"


def saved_model(folder: Path) -> Path:
    """A sound model folder."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    denoiser = EmbeddingDenoiser(embedding_dim=6, num_classes=3, num_domains=2, width=16, depth=2)
    standardizer = EmbeddingStandardizer.fit(rng.standard_normal((50, 6)))
    names = ["basophil", "blast", "monocyte"]
    EmbeddingDiffusionPipeline.from_parts(denoiser, standardizer, names, ["a", "b"]).save_pretrained(folder / "model")
    return folder / "model"


def model_case(input: str, change: Callable[[Path, Path], None], *says: str) -> None:
    """A model folder that ``change(model, folder)`` spoilt."""

    @case(input, OPEN, *says)
    def _(folder: Path) -> Door:
        model = saved_model(folder)
        change(model, folder)
        return lambda: EmbeddingDiffusionPipeline.from_pretrained(model)


def edited(file: str, **changes: Any) -> Callable[[Path, Path], None]:
    """Other values in a JSON file of the model; a module ``evil`` lies on Python's path."""

    def change(model: Path, folder: Path) -> None:
        evil_module(folder)
        path = model / file
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


def tensors(part: str, change_: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path, Path], None]:
    """Other tensors in a part of the model."""

    def change(model: Path, _: Path) -> None:
        state = load_file(model / part / WEIGHTS)
        change_(state)
        save_file(state, model / part / WEIGHTS, metadata={"format": "pt"})

    return change


def _pickled_weights(model: Path, folder: Path) -> None:
    (model / "denoiser" / WEIGHTS).unlink()
    torch.save({"a": Payload(folder)}, model / "denoiser" / "diffusion_pytorch_model.bin")


INDEX, CONFIG, SCHEDULER = "model_index.json", "denoiser/config.json", "scheduler/scheduler_config.json"
model_case(
    "model_index.json that names subprocess.Popen",
    edited(INDEX, denoiser=["subprocess", "Popen"]),
    INDEX,
    "'Popen'",
    "nothing was imported",
)
model_case(
    "model_index.json that names a module in the folder",
    edited(INDEX, standardizer=["evil", "EmbeddingStandardizer"]),
    INDEX,
    "'evil'",
)
model_case(
    "model_index.json with a scheduler of os",
    edited(INDEX, scheduler=["os", "system"]),
    INDEX,
    "scheduler 'system' of 'os'",
)
model_case(
    "model_index.json of another pipeline",
    edited(INDEX, _class_name="StableDiffusionPipeline"),
    INDEX,
    "'StableDiffusionPipeline'",
)
model_case(
    "model_index.json with a part more", edited(INDEX, safety_checker=["evil", "Checker"]), INDEX, "'safety_checker'"
)
model_case(
    "model_index.json nested 100,000 deep",
    lambda m, _: (m / INDEX).write_bytes(b"[" * 100_000),
    INDEX,
    "not readable as JSON",
)
model_case("classes that are no list of names", edited(INDEX, id2label={"0": ["x"], "7": 1}), INDEX, "id2label is")
model_case("fewer classes than the network has", edited(INDEX, id2label={"0": "blast"}), INDEX, "num_classes")
model_case("network 2^24 wide (memory bomb)", edited(CONFIG, width=1 << 24), CONFIG, "width is 16777216")
model_case("network of a billion layers", edited(CONFIG, depth=10**9), CONFIG, "depth is 1000000000")
model_case("network larger than its weights", edited(CONFIG, depth=300), "denoiser/" + WEIGHTS, "tensors are missing")
model_case("auto_map with code in config.json", edited(CONFIG, auto_map={"AutoModel": "evil.X"}), CONFIG, "'auto_map'")
model_case(
    "scheduler of 10^12 steps", edited(SCHEDULER, num_train_timesteps=10**12), SCHEDULER, "num_train_timesteps is"
)
model_case("pickle in place of safetensors", _pickled_weights, "denoiser/" + WEIGHTS, "pickles are not opened")
model_case(
    "model weights that are not finite",
    tensors("denoiser", lambda t: t["output.bias"].fill_(float("inf"))),
    "output.bias",
    "not finite",
)
model_case(
    "standardiser with a negative scale",
    tensors("standardizer", lambda t: t["scale"].neg_()),
    "standardizer/",
    "scale has values that are not above 0",
)
model_case(
    "model whose weights lack a tensor",
    tensors("denoiser", lambda t: t.pop("input.bias")),
    "1 tensors are missing",
    "input.bias",
)
model_case("model without its scheduler", lambda m, _: shutil.rmtree(m / "scheduler"), SCHEDULER, "no such file")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _training(folder: Path, seed: int = 0) -> Iterator[Any]:
    X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    names = ["blast", "monocyte"]
    sizes = {"steps": 2, "width": 16, "depth": 1, "batch_size": 8}
    return iter(train(X, names * 20, class_names=names, seed=seed, checkpoint_dir=folder, **sizes))  # type: ignore[arg-type]


def _checkpoint(folder: Path, seed: int = 0) -> Path:
    """The checkpoint of a finished training, alone in its folder."""
    for _ in _training(folder, seed):
        pass
    (file,) = folder.glob("*.pt")
    return file


def checkpoint_case(input: str, make: Callable[[Path, Path], None], *says: str) -> None:
    """A file where training looks for its checkpoint."""

    @case(input, "train(checkpoint_dir=...)", ".pt: ", *says)
    def _(folder: Path) -> Door:
        make(_checkpoint(folder / "mine"), folder)
        return lambda: next(_training(folder / "mine"))


def _of_another_recipe(file: Path, folder: Path) -> None:
    shutil.copyfile(_checkpoint(folder / "other", seed=1), file)


def _odd_state(file: Path, _: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save(state | {"progress": {"__class__": "evil"}}, file)


checkpoint_case("checkpoint that is a pickle", lambda f, d: torch.save({"a": Payload(d)}, f), "not run", "delete it")
checkpoint_case("checkpoint of another recipe", _of_another_recipe, "of other data or arguments", "delete it")
checkpoint_case("checkpoint with another state inside", _odd_state, "does not fit", "delete it")


@case(
    "checkpoint cut in the middle",
    "train(checkpoint_dir=...)",
    ".pt: ",
    "damaged",
    "anew",
    goes_on=True,
    leaves=("mine/*",),
)
def _(folder: Path) -> Door:
    file = _checkpoint(folder / "mine")
    file.write_bytes(file.read_bytes()[:-100])

    def door() -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            next(_training(folder / "mine"))
        return line_with([str(warning.message) for warning in caught], "damaged")

    return door
