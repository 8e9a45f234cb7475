"""Which objects lie in a field of a smear, and where: white cells, doublets, artefacts, and the red cells around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytolib.data.phantoms.anatomy import Anatomy, unit
from cytolib.data.phantoms.artefacts import Artefact, random_clot, random_debris, random_smudge
from cytolib.data.phantoms.classes import random_anatomy
from cytolib.data.phantoms.draw import MARGIN_UM
from cytolib.data.phantoms.surroundings import Smear
from cytolib.data.phantoms.vocabulary import CLASS_WEIGHTS, CLASSES, HELD_OUT

#: How often an object is of each kind.
KINDS: dict[str, float] = {"cell": 0.72, "smudge": 0.10, "clot": 0.06, "debris": 0.12}
DOUBLET_CHANCE = 0.10  # that a cell lies against the next one drawn
_ARTEFACTS = {"smudge": random_smudge, "clot": random_clot, "debris": random_debris}
_GAP_UM = 0.6  # between objects that do not touch
_TRIES = 400


@dataclass
class Item:
    """An object at (x, y) micrometres from the middle of the field; `cluster` is 0 or the number of its doublet."""

    what: Anatomy | Artefact
    label: str  # class of a cell, else empty
    cluster: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def kind(self) -> str:
        return self.what.kind if isinstance(self.what, Artefact) else "cell"

    @property
    def radius_um(self) -> float:
        """Of a circle that holds it."""
        if isinstance(self.what, Artefact):
            return self.what.radius_um
        segments = self.what.segments
        ends = [np.hypot(segments[:, k], segments[:, k + 1]) + segments[:, 4 + k // 2] for k in (0, 2)]
        nucleus = float(np.max(ends)) + MARGIN_UM if len(segments) else 0.0
        return max(float(self.what.outline.max()), nucleus) + 0.2


def random_items(n: int, held_out_share: float, rng: np.random.Generator) -> list[Item]:
    """n objects, two of a doublet one after the other."""
    names, shares = list(CLASSES), np.array([CLASS_WEIGHTS[label] for label in CLASSES])
    items: list[Item] = []
    clusters = 0
    for _ in range(n):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        before = items[-1] if items else None
        joins = rng.random() < DOUBLET_CHANCE
        if kind != "cell":
            items.append(Item(_ARTEFACTS[kind](rng), ""))
            continue
        label = HELD_OUT if rng.random() < held_out_share else str(rng.choice(names, p=shares))
        item = Item(random_anatomy(label, rng), label)
        whole = before is not None and before.kind == "cell" and before.cluster == 0
        if joins and before is not None and whole and "platelet" not in (label, before.label):
            clusters += 1
            before.cluster = item.cluster = clusters
        items.append(item)
    return items


def place(items: list[Item], half_um: tuple[float, float], rng: np.random.Generator) -> None:
    """Give each item a place with its middle in the field (half width, half height), none touching but doublets.

    Raises ValueError if they find no room.
    """
    groups: list[list[Item]] = []
    for item in items:
        if item.cluster and groups and groups[-1][0].cluster == item.cluster:
            groups[-1].append(item)
        else:
            groups.append([item])
    taken = np.zeros((0, 3))
    # The largest first: they find room last.
    for group in sorted(groups, key=lambda g: -sum(item.radius_um for item in g)):
        for _ in range(_TRIES):
            circles = _try_place(group, half_um, rng)
            apart = np.sqrt(((circles[:, None, :2] - taken[None, :, :2]) ** 2).sum(-1))
            if (apart >= circles[:, None, 2] + taken[:, 2] + _GAP_UM).all():
                taken = np.vstack([taken, circles])
                break
        else:
            width, height = (2 * half for half in half_um)
            raise ValueError(
                f"n_objects is {len(items)}, but only {len(taken)} found room in a field of "
                f"{width:.0f} x {height:.0f} um; ask for fewer or for a larger size"
            )


def _try_place(group: list[Item], half_um: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Circles (k, 3) of a cell or doublet at a random place."""
    first = group[0]
    first.x, first.y = (float(rng.uniform(-half, half)) for half in half_um)
    if len(group) == 2:
        second = group[1]
        angle = float(rng.uniform(0, 2 * np.pi))
        for turn in (0.0, np.pi / 2, np.pi, -np.pi / 2):
            # They touch along the line between their middles, a little pressed together.
            apart = _radius_at(first, angle + turn) + _radius_at(second, angle + turn + np.pi) - 0.3
            second.x, second.y = (float(v) for v in np.array([first.x, first.y]) + apart * unit(angle + turn))
            if abs(second.x) < half_um[0] and abs(second.y) < half_um[1]:
                break
    return np.array([[item.x, item.y, item.radius_um] for item in group])


def _radius_at(item: Item, angle: float) -> float:
    assert isinstance(item.what, Anatomy)
    outline = item.what.outline
    return float(outline[int(angle / (2 * np.pi) * len(outline)) % len(outline)])


def place_red_cells(
    smear: Smear, items: list[Item], half_um: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Centres (n, 2) in micrometres of red cells, a layer that thins out to one side and makes way for the objects."""
    reach = np.array(half_um) + smear.radius_um
    steps = int(np.ceil(1.2 * np.hypot(*reach) / smear.spacing_um)) + 1
    i, j = np.meshgrid(np.arange(-2 * steps, 2 * steps + 1), np.arange(-2 * steps, 2 * steps + 1))
    turn = rng.uniform(0, np.pi)
    grid = smear.spacing_um * (i.reshape(-1, 1) * unit(turn) + j.reshape(-1, 1) * unit(turn + np.pi / 3))
    grid = grid[(np.abs(grid) < reach + 2 * smear.spacing_um).all(1)]
    centres = grid + rng.normal(0, 0.17 * smear.spacing_um, grid.shape)
    # Thick on one side of the field, thinner towards the feathered edge.
    slope = rng.uniform(0, 0.25) * unit(rng.uniform(0, 2 * np.pi))
    occupancy = np.clip(smear.occupancy + (centres / reach) @ slope, 0.15, 0.98)
    centres = centres[rng.random(len(centres)) < occupancy]
    centres = _make_way(centres, smear.radius_um, items, rng)
    doubled = centres[rng.random(len(centres)) < smear.clumping]
    step = smear.radius_um * rng.uniform(0.5, 1.3, (len(doubled), 1)) * unit(rng.uniform(0, 2 * np.pi, len(doubled)))
    centres = np.vstack([centres, _make_way(doubled + step, smear.radius_um, items, rng)])
    return centres[(np.abs(centres) < reach).all(1)]


def _make_way(centres: np.ndarray, radius_um: float, items: list[Item], rng: np.random.Generator) -> np.ndarray:
    """Red cells beside an object slide away from its middle; those under it or pushed into another are gone."""
    pushing = [item for item in items if item.kind != "debris"]  # precipitate lies on the red cells
    if not pushing or not len(centres):
        return centres
    middle = np.array([[item.x, item.y] for item in pushing])
    size = np.array([item.radius_um for item in pushing])

    def nearest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        away = points[:, None] - middle
        distance = np.sqrt((away**2).sum(-1))
        closest = (distance - size).argmin(1)
        row = np.arange(len(points))
        return closest, away[row, closest], distance[row, closest]

    closest, away, distance = nearest(centres)
    clear = size[closest] + radius_um * rng.uniform(0.75, 1.1, len(centres))
    slide = np.maximum(clear / np.maximum(distance, 0.1), 1.0)
    moved = (middle[closest] + away * slide[:, None])[distance > 0.6 * clear]
    closest, _, distance = nearest(moved)
    return moved[distance > size[closest] + 0.6 * radius_um]
