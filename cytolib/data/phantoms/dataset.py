"""A data set of phantoms: which cells, with a long tail over classes and sites, and its files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from cytolib.data.phantoms.cell import PhantomCell, draw_cell
from cytolib.data.phantoms.morph import OVERLAP, draw_ambiguous, morph
from cytolib.data.phantoms.vocabulary import (
    CLASS_WEIGHTS,
    CLASSES,
    DOMAIN_WEIGHTS,
    DOMAINS,
    HELD_OUT,
    cell_type,
    check_count,
    check_size,
)
from cytolib.run.artefacts import atomic_path, put_bytes

N_HELD_OUT = 50
_FIRST, _LABEL, _DOMAIN, _SEED, _HELD_OUT = range(5)  # independent streams of one seed


def plan(
    n_cells: int,
    seed: int,
    n_held_out: int = N_HELD_OUT,
    class_weights: Mapping[str, float] | None = None,
    domain_weights: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Which cells to draw: a DataFrame of n_cells + n_held_out rows with columns label, domain, cell_seed (int64).

    Cell k of the first n_cells depends on (seed, k) and the weights alone, not on n_cells; so does cell k of the
    held-out class behind them. Labels and domains are independent draws by weight, but the first cells go once through
    every class in every domain (classes first), so that from n_cells = 8 on no class, and from 24 on no pair, is
    missing. A class or domain of weight 0, or not named in the weights given, is left out.
    Raises ValueError or TypeError for negative counts, unknown names, bad weights.
    """
    for name, count in (("n_cells", n_cells), ("seed", seed), ("n_held_out", n_held_out)):
        check_count(name, count)
    labels, label_shares = _shares("class_weights", class_weights, CLASS_WEIGHTS, CLASSES)
    domains, domain_shares = _shares("domain_weights", domain_weights, DOMAIN_WEIGHTS, DOMAINS)

    label = _draw(label_shares, n_cells, [seed, _LABEL])
    domain = _draw(domain_shares, n_cells, [seed, _DOMAIN])
    first_label, first_domain = _once_through(len(labels), len(domains), seed)
    n_first = min(n_cells, len(first_label))
    label[:n_first], domain[:n_first] = first_label[:n_first], first_domain[:n_first]
    extra = _draw(domain_shares, n_held_out, [seed, _HELD_OUT, _DOMAIN])
    n_first = min(n_held_out, len(domains))
    extra[:n_first] = np.arange(n_first)

    def seeds(n: int, stream: list[int]) -> np.ndarray:
        return np.random.default_rng(stream).integers(2**62, size=n, dtype=np.int64)

    return pd.DataFrame(
        {
            "label": [labels[i] for i in label] + [HELD_OUT] * n_held_out,
            "domain": [domains[i] for i in np.concatenate([domain, extra])],
            "cell_seed": np.concatenate([seeds(n_cells, [seed, _SEED]), seeds(n_held_out, [seed, _HELD_OUT, _SEED])]),
        }
    )


def write_phantoms(
    folder: Path | str,
    n_cells: int,
    seed: int,
    size: int = 96,
    n_held_out: int = N_HELD_OUT,
    progress: bool = True,
) -> pd.DataFrame:
    """Draw `plan(n_cells, seed, n_held_out)` into a folder and return its cell table (split is "": not yet split).

    Files: images/<label>/<k>.png (size, size, 3); masks/<k>.png (0 background, 1 cytoplasm, 2 nucleus); factors.parquet
    (cell_id and the numbers that made each cell), written last. `path` and `mask` in the table are relative to
    `folder`; `cell_id` is the sha256 of the PNG bytes; `source_label` is the subtype as drawn, `cell_type` its
    harmonised name. Same arguments and library versions, same bytes. The folder is complete only when the call returns:
    write into one that is renamed afterwards. Raises ValueError or TypeError for bad arguments.
    """
    check_size(size)
    wanted = plan(n_cells, seed, n_held_out)
    rows = zip(wanted["label"], wanted["domain"], wanted["cell_seed"], strict=True)
    cells = (draw_cell(label, domain, int(cell_seed), size) for label, domain, cell_seed in rows)
    return _write(Path(folder), cells, list(wanted["label"]), progress)


def write_ambiguous(
    folder: Path | str,
    first: str,
    second: str,
    n: int,
    seed: int,
    overlap: float = OVERLAP,
    prior: float = 0.5,
    domain: str | None = None,
    size: int = 96,
    progress: bool = True,
) -> pd.DataFrame:
    """Draw `draw_ambiguous(first, second, n, seed, ...)` into a folder and return its cell table, as `write_phantoms`.

    The label is the class that the model drew, which need not be the likelier one; factors.parquet also holds first,
    second, t and posterior, the exact probability of `second`. `cell_type` is the label: no subtype lies between two.
    Raises ValueError or TypeError for bad arguments.
    """
    check_size(size)
    wanted = draw_ambiguous(first, second, n, seed, overlap, prior, domain)

    def cells() -> Iterable[PhantomCell]:
        for row in wanted.to_dict("records"):
            cell = morph(first, second, row["t"], row["domain"], int(row["cell_seed"]), size)
            cell.factors |= {"label": row["label"], "posterior": row["posterior"]}
            yield cell

    return _write(Path(folder), cells(), list(wanted["label"]), progress)


def _write(folder: Path, cells: Iterable[PhantomCell], labels: list[str], progress: bool) -> pd.DataFrame:
    """Write the cells, whose labels are known beforehand, and return their table."""
    for sub in ["masks", *(f"images/{label}" for label in sorted(set(labels)))]:
        (folder / sub).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    factors: list[dict[str, object]] = []
    for k, cell in enumerate(tqdm(cells, total=len(labels), desc="phantoms", unit="cell", disable=not progress)):
        label, subtype = labels[k], str(cell.factors["subtype"])
        png, path, mask = _png(cell.image), f"images/{label}/{k:06d}.png", f"masks/{k:06d}.png"
        cell_id = hashlib.sha256(png).hexdigest()
        put_bytes(png, folder / path)
        put_bytes(_png(_mask(cell)), folder / mask)
        named = {"cell_type": cell_type(label, subtype), "source_label": subtype or label}
        placed = {"domain": cell.factors["domain"], "um_per_px": cell.factors["um_per_px"], "mask": mask}
        rows.append({"cell_id": cell_id, "path": path, "label": label, **named, **placed})
        factors.append({"cell_id": cell_id, **cell.factors})
    with atomic_path(folder / "factors.parquet") as temporary:
        pd.DataFrame(factors).to_parquet(temporary, index=False)
    table = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype="str") for name in _WORDS})
    table = table.assign(dataset="phantoms", group=pd.Series([None] * len(table), dtype="str"), split="")
    table["um_per_px"] = np.array([row["um_per_px"] for row in rows], np.float64)
    table["mask"] = pd.Series([row["mask"] for row in rows], dtype="str")
    return table


_WORDS = ("cell_id", "path", "label", "cell_type", "source_label", "domain")


def _shares(
    name: str, weights: Mapping[str, float] | None, default: Mapping[str, float], known: tuple[str, ...]
) -> tuple[list[str], np.ndarray]:
    """Names of positive weight, in the vocabulary's order, and their shares, which sum to 1."""
    weights = default if weights is None else weights
    for key, value in weights.items():
        if key not in known:
            raise ValueError(f"{name} names {key!r}, expected some of {', '.join(known)}; correct or remove it")
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}[{key!r}] is {value}, expected a finite number of 0 or more; correct it")
    names = [key for key in known if weights.get(key, 0) > 0]
    if not names:
        raise ValueError(f"{name} has no positive weight, expected at least one; name one of {', '.join(known)}")
    shares = np.array([weights[key] for key in names], float)
    return names, shares / shares.sum()


def _draw(shares: np.ndarray, n: int, stream: list[int]) -> np.ndarray:
    """n indices with the given shares; the k-th does not depend on n."""
    edges = np.cumsum(shares)[:-1]
    return np.searchsorted(edges, np.random.default_rng(stream).random(n), side="right")


def _once_through(n_labels: int, n_domains: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Every (label, domain) pair once, in rounds that each hold every label."""
    rng = np.random.default_rng([seed, _FIRST])
    rounds = np.array([rng.permutation(n_labels) for _ in range(n_domains)])
    start = rng.integers(n_domains, size=n_labels)
    domain = (start[rounds] + np.arange(n_domains)[:, None]) % n_domains
    return rounds.ravel(), domain.ravel()


def _mask(cell: PhantomCell) -> np.ndarray:
    """0 background, 1 cytoplasm, 2 nucleus."""
    return (cell.cytoplasm + 2 * cell.nucleus).astype(np.uint8)


def _png(array: np.ndarray) -> bytes:
    """PNG bytes of (H, W, 3) or (H, W) uint8; no time, no metadata."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
