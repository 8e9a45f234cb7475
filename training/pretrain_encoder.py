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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from cytolib import run
from training.material import Material, read_material, write_list
from training.method import NAMES, Method
from training.views import Views

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """All that the weights depend on, besides the material.

    Attributes:
        method: one of ``NAMES``. arch: a timm architecture. size: pixels a side of a view.
        epochs: passes through the material. batch: cells a step, two views of each. phantoms: how many are drawn.
        learning_rate, weight_decay: of AdamW; the rate warms up over two epochs and falls along a cosine.
        regress: weight of the regression of the classical features; 0 for none.
        density, blur, zoom, shift: see ``Views``.
        precision: bfloat16 (autocast) or float32; on a CPU the faster one depends on the architecture.
        seed: of the weights, the order and the views.
    """

    method: str = "vicreg"
    arch: str = "resnet10t"
    size: int = 96
    epochs: int = 40
    batch: int = 128
    phantoms: int = 4000
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    regress: float = 0.0
    density: float = 0.2
    blur: float = 0.3
    zoom: float = 1.6
    shift: float = 0.08
    precision: str = "bfloat16"
    seed: int = 0


class Learner(nn.Module):
    """The method, and the regression of the classical features (B, D) beside it."""

    def __init__(self, recipe: Recipe, n_features: int) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        backbone = make_backbone(recipe.arch, recipe.size)
        with torch.no_grad():
            dim = int(backbone.eval()(torch.zeros(1, 3, recipe.size, recipe.size)).shape[1])
        self.method: Method = make_method(recipe.method, backbone.train(), dim)
        self.weight = recipe.regress
        self.regression = nn.Sequential(nn.Linear(dim, 512), nn.GELU(), nn.Linear(512, n_features))

    def forward(self, first: Tensor, second: Tensor, features: Tensor) -> Tensor:
        """The loss of two views of each cell."""
        loss, found = self.method.loss(first, second)
        if self.weight:
            told = self.regression(found.float())
            loss = loss + self.weight * functional.smooth_l1_loss(told, torch.cat([features, features]))
        return loss


def make_method(name: str, backbone: nn.Module, dim: int) -> Method:
    """The method of that name, one of ``NAMES``, with the losses and heads of lightly."""
    try:
        from training.methods import METHODS
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: the methods need lightly; install cytolib[pretrain]") from error
    return METHODS[name](backbone, dim)


def make_backbone(arch: str, size: int) -> nn.Module:
    """A timm model without classifier; transformers are built for ``size``."""
    options = {"img_size": size} if arch.startswith(("vit_", "deit")) else {}
    return timm.create_model(arch, pretrained=False, num_classes=0, **options).to(memory_format=torch.channels_last)


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
    views = Views(recipe.size, recipe.zoom, shift=recipe.shift, density=recipe.density, blur=recipe.blur)
    learner.train()
    started = time.monotonic()
    with tqdm(total=n_steps, initial=done, unit="step", disable=not progress) as bar:
        for step in range(done, n_steps):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, n_steps, 2 * per_epoch, recipe.learning_rate)
            loss = _step(learner, optimiser, views, _batch(material, recipe, step, per_epoch), recipe, step)
            learner.method.after_step(step / n_steps)
            bar.update()
            if (step + 1) % 50 == 0:
                bar.set_postfix(epoch=f"{(step + 1) / per_epoch:.1f}", loss=f"{loss:.3f}")
            if (step + 1) % every == 0 or step + 1 == n_steps:
                _keep(folder / CHECKPOINT, recipe, learner, optimiser, step + 1, spent + time.monotonic() - started)
    return learner


def _batch(material: Material, recipe: Recipe, step: int, per_epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of the cells of a step, their features, and images of their twins."""
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(len(material.images), generator=generator_of(recipe.seed, 1, epoch))
    rows = np.sort(order[place * recipe.batch : (place + 1) * recipe.batch].numpy())
    twins = material.twins[rows]
    first = np.asarray(material.images[rows])
    second = first.copy()
    second[twins != rows] = material.images[twins[twins != rows]]
    return torch.from_numpy(first), torch.from_numpy(material.features[rows]), torch.from_numpy(second)


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


def export(backbone: nn.Module, file: Path, metadata: dict[str, str]) -> str:
    """Write the backbone's tensors in half precision; returns the file's SHA-256."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    with run.atomic_path(file) as temporary:
        save_file(halves, temporary, metadata=metadata)
    return run.sha256(file)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.pretrain_encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the checkpoint and of what is measured")
    parser.add_argument("--material", type=Path, default=run.cache_root() / "pretraining", help="folder of read images")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the weights as half-precision safetensors")
    parser.add_argument("--image-size", type=int, default=128, help="pixels a side of a whole frame when measured")
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
    from training.measure import measure

    state = torch.load(options.out / CHECKPOINT, map_location="cpu", weights_only=True)
    found = asdict(recipe) | {"minutes": round(state["seconds"] / 60, 1), "device": str(run.device())}
    found |= measure(learner.method.backbone, options.image_size, options.material)
    with run.atomic_path(options.out / "measured.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))
    if options.export:
        print(options.export, export(learner.method.backbone, options.export, {"recipe": json.dumps(asdict(recipe))}))


if __name__ == "__main__":
    main()
