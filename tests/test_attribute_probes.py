"""Attribute probes: they find what is there, find nothing in noise, and say so with an interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cytolib.classify.attributes import attribute_probes


def cells(n: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Vectors that hold a length and a colour, and know nothing of a name; vacuoles are known for half of the cells."""
    rng = np.random.default_rng(seed)
    length, colour = rng.normal(10, 2, n), rng.choice(["blue", "pink", "grey"], n, p=[0.6, 0.3, 0.1])
    X = rng.normal(size=(n, 12))
    X[:, 0] += 3 * length
    X[:, 1] += 6 * (colour == "blue")
    X[:, 2] += 6 * (colour == "pink")
    table = pd.DataFrame({"length": length, "colour": colour, "name": rng.choice(["a", "b"], n), "site": "one"})
    table["vacuoles"] = np.where(np.arange(n) % 2, (X[:, 3] > 0).astype(float), np.nan)
    table.loc[:2, "colour"] = "gold"  # too few to ask for
    return X.astype(np.float32), table


def test_known_attributes_are_found_and_noise_is_not() -> None:
    (X, train), (Y, test) = cells(600, 0), cells(400, 1)
    found = attribute_probes(X, train, Y, test).set_index("attribute")
    assert set(found.index) == {"length", "colour", "name", "vacuoles"}  # "site" has one value
    assert found.loc["length", "kind"] == "number" and found.loc["colour", "kind"] == "category"
    assert found.loc["length", "skill"] > 0.9 and found.loc["colour", "skill"] > 0.9
    assert found.loc["name", "low"] < 0 < found.loc["name", "high"]
    assert found["shuffled"].abs().max() < 0.2
    assert found.loc["vacuoles", "n"] == 200 and found.loc["colour", "n"] == 397
    assert (found["low"] <= found["skill"]).all() and (found["skill"] <= found["high"]).all()


def test_rows_that_do_not_fit_are_refused() -> None:
    X, table = cells(60, 0)
    with pytest.raises(ValueError, match="60 and 60 embeddings, 59 and 60 rows"):
        attribute_probes(X, table[1:], X, table)
    with pytest.raises(ValueError, match="other columns"):
        attribute_probes(X, table, X, table.drop(columns="name"))
