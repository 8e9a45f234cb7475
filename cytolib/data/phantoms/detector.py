"""A simulated cell detector: how sure it is of each object, where it draws the box, what it misses and imagines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from cytolib.data.phantoms.vocabulary import check_count

if TYPE_CHECKING:
    from cytolib.data.phantoms.field import PhantomField

#: Log odds of the score of an object without blur, whole and alone: platelets are small, artefacts pass for cells.
LOG_ODDS: dict[str, float] = {"cell": 3.2, "platelet": 2.0, "smudge": 1.6, "clot": 1.0, "debris": 0.4}
SPREAD = 0.9  # standard deviation between objects
DEFOCUS_COST = 3.0  # log odds a micrometre of blur
TRUNCATED_COST = 1.0
CROWDED_COST = 0.7
CROWDED_UM = 2.0  # boxes closer than this crowd each other


def detector_scores(objects: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Scores (n,) in 0..1 of a field's objects: log odds by kind, less for blur, truncation and crowding, and a spread.

    Cells score high, artefacts lower, and the two overlap: no threshold on the score tells them apart.
    """
    kind = objects["kind"].where(objects["label"] != "platelet", "platelet")
    log_odds = kind.map(LOG_ODDS).to_numpy(float, copy=True)
    log_odds -= DEFOCUS_COST * objects["focus_blur_um"].to_numpy(float)
    log_odds -= TRUNCATED_COST * objects["truncated"].to_numpy(float)
    log_odds -= CROWDED_COST * crowded(objects)
    return expit(log_odds + SPREAD * rng.standard_normal(len(objects)))


def crowded(objects: pd.DataFrame) -> np.ndarray:
    """Whether (n,) another box lies within CROWDED_UM of an object's own."""
    x0, y0, x1, y1 = (objects[name].to_numpy(float) for name in ("x0", "y0", "x1", "y1"))
    across = np.maximum(x0[:, None] - x1, x0 - x1[:, None])
    down = np.maximum(y0[:, None] - y1, y0 - y1[:, None])
    gap = np.maximum(across, down) * objects["um_per_px"].to_numpy(float)[:, None]
    np.fill_diagonal(gap, np.inf)
    return (gap < CROWDED_UM).any(1)


def detections(drawn: PhantomField, seed: int, jitter: float = 0.05, false_alarms: float = 0.1) -> pd.DataFrame:
    """What the detector reports: object_id (0: a false alarm), x0, y0, x1, y1 (float pixels), score; best score first.

    An object of score s is found with probability 0.5 + 0.5 s. The edges of its box are off by a standard deviation of
    `jitter` (0 to 0.5) of the box's side. False alarms are red cells, on average `false_alarms` (0 to 10) to an object.
    Raises ValueError or TypeError for bad arguments.
    """
    check_count("seed", seed)
    for name, value, highest in (("jitter", jitter, 0.5), ("false_alarms", false_alarms, 10.0)):
        if not 0 <= value <= highest:
            raise ValueError(f"{name} is {value}, expected 0 to {highest:g}; pass for example 0.05")
    rng = np.random.default_rng([seed, len(drawn.objects)])
    score = drawn.objects["score"].to_numpy(float)
    found = drawn.objects[rng.random(len(score)) < 0.5 + 0.5 * score]
    boxes = found[["x0", "y0", "x1", "y1"]].to_numpy(float)
    side = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + jitter * side * rng.standard_normal(boxes.shape)
    n_false = min(int(rng.poisson(false_alarms * len(score))), len(drawn.red_cells))
    red = drawn.red_cells[rng.permutation(len(drawn.red_cells))[:n_false]]
    wide = red[:, 2:] * rng.uniform(0.9, 1.3, (n_false, 1))
    boxes = np.vstack([boxes, np.hstack([red[:, :2] - wide, red[:, :2] + wide])])
    height, width = drawn.instances.shape
    boxes = np.clip(boxes, 0, [width, height, width, height])
    table = pd.DataFrame(boxes, columns=["x0", "y0", "x1", "y1"])
    table.insert(0, "object_id", np.concatenate([found["object_id"].to_numpy(np.int64), np.zeros(n_false, np.int64)]))
    table["score"] = np.concatenate([found["score"].to_numpy(float), rng.beta(2, 5, n_false)])
    seen = (table["x1"] - table["x0"] >= 2) & (table["y1"] - table["y0"] >= 2)
    return table[seen].sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
