"""Train the encoder that this project ships, without labels: PBC's training split and phantoms, nothing else.

    python -m training.pretrain_encoder --out runs/a --method vicreg --arch resnet10t --epochs 40
    python -m training.pretrain_encoder --out runs/a --epochs 40 --export FILE     and writes half-precision safetensors

Needs ``pip install cytolib[pretrain]`` and PBC under CYTOLIB_DATA (``cytolib data get pbc``). A GPU is used where
torch finds one. Killed at any moment, the same command goes on from the last checkpoint and, on the same machine, ends
in the same weights, bit for bit: every random number is a function of the seed and the step. What is measured is
written to ``measured.json`` beside the checkpoint, on validation cells alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from cytolib import run
from cytolib.views import Views, middles
from training.export import export, with_components
from training.learner import Learner, Recipe
from training.material import Material, read_material, write_list
from training.measure import measure
from training.method import NAMES

CHECKPOINT = "checkpoint.pt"


def generator_of(*numbers: int) -> torch.Generator:
    """Random numbers that depend on these numbers alone."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def optimiser_of(learner: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; biases and the parameters of normalisation do not decay."""
    learned = [p for p in learner.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def rate(step: int, n_steps: int, warm_up: int, highest: float) -> float:
    """The learning rate of a step: up along a line, then down along a half cosine to a hundredth."""
    if step < warm_up:
        return highest * (step + 1) / warm_up
    fallen = (step - warm_up) / max(1, n_steps - warm_up)
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))


def train(recipe: Recipe, material: Material, folder: Path, every: int = 200, progress: bool = True) -> Learner:
    """Train to the end, from the last checkpoint in ``folder`` on where there is one.

    Raises:
        ValueError: if the checkpoint is of another recipe.
    """
    device = run.device()
    learner = Learner(recipe, material.features.shape[1]).to(device)
    optimiser = optimiser_of(learner, recipe)
    per_epoch = len(material.images) // recipe.batch
    n_steps = per_epoch * recipe.epochs
    done, spent = _resume(folder / CHECKPOINT, recipe, learner, optimiser)
    learner.train()
    started = time.monotonic()
    with tqdm(total=n_steps, initial=done, unit="step", disable=not progress) as bar:
        for step in range(done, n_steps):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, n_steps, 2 * per_epoch, recipe.learning_rate)
            views = _views(recipe, step / n_steps)
            loss = _step(learner, optimiser, views, _batch(material, recipe, step, per_epoch), recipe, step)
            learner.method.after_step(step / n_steps)
            bar.update()
            if (step + 1) % 50 == 0:
                bar.set_postfix(epoch=f"{(step + 1) / per_epoch:.1f}", loss=f"{loss:.3f}")
            if (step + 1) % every == 0 or step + 1 == n_steps:
                _keep(folder / CHECKPOINT, recipe, learner, optimiser, step + 1, spent + time.monotonic() - started)
    return learner


def _views(recipe: Recipe, progress: float) -> Views:
    size = recipe.early_size if progress < recipe.early_share else recipe.size
    return Views(size, zoom=recipe.zoom, shift=recipe.shift, density=recipe.density, blur=recipe.blur)


def _batch(material: Material, recipe: Recipe, step: int, per_epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of the cells of a step, their features, and the images of which the second views are."""
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(len(material.images), generator=generator_of(recipe.seed, 1, epoch))
    rows = np.sort(order[place * recipe.batch : (place + 1) * recipe.batch].numpy())
    partners = _partners(material, recipe, rows, generator_of(recipe.seed, 3, step))
    first = np.asarray(material.images[rows])
    second = first.copy()
    second[partners != rows] = material.images[partners[partners != rows]]
    return torch.from_numpy(first), torch.from_numpy(material.features[rows]), torch.from_numpy(second)


def _partners(
    material: Material, recipe: Recipe, rows: NDArray[np.int64], generator: torch.Generator
) -> NDArray[np.int64]:
    """Whose image the second view of each cell is of: its twin's, or, for some, that of a cell much like it."""
    chosen = torch.rand(len(rows), generator=generator).numpy() < recipe.neighbour
    which = torch.randint(recipe.nearest, (len(rows),), generator=generator).numpy()
    return np.where(chosen, material.neighbours[rows, which], material.twins[rows])


def _step(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    views: Views,
    batch: tuple[Tensor, Tensor, Tensor],
    recipe: Recipe,
    step: int,
) -> float:
    device, generator = run.device(), generator_of(recipe.seed, 2, step)
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))  # dropout, masks
    zoom = views.draw_zoom(len(batch[0]), generator)
    first, second = (
        views(pictures.to(device).permute(0, 3, 1, 2).float().div_(255), zoom, generator)
        for pictures in (batch[0], batch[2])
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        loss = learner(first, second, batch[1].to(device))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 3.0)
    optimiser.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ValueError(f"the loss is {value} at step {step}; lower --learning-rate")
    return value


def _keep(
    path: Path, recipe: Recipe, learner: Learner, optimiser: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    state = {"recipe": asdict(recipe), "learner": learner.state_dict(), "optimiser": optimiser.state_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with run.atomic_path(path) as temporary:
        torch.save(state | {"step": step, "seconds": seconds}, temporary)


def _resume(path: Path, recipe: Recipe, learner: Learner, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps done and seconds spent so far."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, map_location=run.device(), weights_only=True)
    if state["recipe"] != asdict(recipe):
        changed = [name for name, value in asdict(recipe).items() if state["recipe"].get(name) != value]
        raise ValueError(f"{path}: it is of another recipe ({', '.join(changed)} differ); give another --out")
    learner.load_state_dict(state["learner"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["seconds"])


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.pretrain_encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the checkpoint and of what is measured")
    parser.add_argument("--material", type=Path, default=run.cache_root() / "pretraining", help="folder of read images")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the weights as half-precision safetensors")
    parser.add_argument("--image-size", type=int, default=96, help="pixels a side of a window when measured")
    parser.add_argument("--list", action="store_true", help="write the list of images anew, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for field in fields(Recipe):
        kind: Any = {"str": str, "int": int, "float": float}[str(field.type)]
        choices = NAMES if field.name == "method" else None
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=kind, default=field.default, choices=choices)
    options = parser.parse_args(arguments)
    if options.out is None and not options.list:
        parser.error("--out FOLDER is needed")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train, measure on validation cells, and export."""
    options = _arguments(arguments)
    if options.list:
        write_list()
        return
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    material = read_material(recipe.phantoms, options.material, progress=not options.quiet)
    learner = train(recipe, material, options.out, progress=not options.quiet)
    state = torch.load(options.out / CHECKPOINT, map_location="cpu", weights_only=True)
    encoder = with_components(learner.method.backbone, recipe, middles(material.images), options.image_size)
    found = asdict(recipe) | {"minutes": round(state["seconds"] / 60, 1), "device": str(run.device())}
    found |= measure(encoder, options.image_size, options.material)
    with run.atomic_path(options.out / "measured.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))
    if options.export:
        print(options.export, export(encoder, options.export, {"recipe": json.dumps(asdict(recipe))}))


if __name__ == "__main__":
    main()
