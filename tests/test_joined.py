"""Encoders side by side: the same numbers as each alone, the same cache, whatever the shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cytolib import embed, framing, morphometry
from cytolib.data import phantoms
from cytolib.data.phantoms.vocabulary import HELD_OUT
from cytolib.encoders import get_encoder
from cytolib.exposure import encoder_exposure
from cytolib.joined import join_metadata, parts_of
from cytolib.morphometry import FEATURE_NAMES
from tests.test_encoders import TINY_CNN, picture, saved


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("cells")
    return phantoms.write_phantoms(folder, n_cells=24, n_held_out=0, size=64, seed=3).reset_index(drop=True), folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> str:
    _, file = saved(tmp_path_factory.mktemp("weights"), TINY_CNN)
    return f"timm:{TINY_CNN}?image_size=64&weights={file}+morphometry?image_size=64"


def test_names_come_apart_at_encoders_only() -> None:
    assert parts_of("morphometry") == ["morphometry"]
    assert parts_of("cytolib-small+morphometry?image_size=64") == ["cytolib-small", "morphometry?image_size=64"]
    assert parts_of("timm:a?weights=/data/a+b/w.pt+dinov2-s") == ["timm:a?weights=/data/a+b/w.pt", "dinov2-s"]
    with pytest.raises(ValueError, match="stands there twice; name each once"):
        parts_of("morphometry+morphometry")


def test_metadata_of_both_are_told() -> None:
    parts = [{"encoder": "a", "dtype": "float32", "fingerprint": "1"}, {"encoder": "b", "dtype": "float32", "x": "y"}]
    assert join_metadata(parts) == {"encoder": "a+b", "dtype": "float32", "x": "y"}
    prints = [join_metadata([parts[0], {"fingerprint": number}])["fingerprint"] for number in "12"]
    assert prints[0] != prints[1] and all(len(text) == 64 for text in prints)


@pytest.mark.parametrize("shard", [512, 5])
def test_embeddings_stand_side_by_side(both: str, shard: int, cells: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    table, folder = cells
    alone = [embed.embed(table, folder, part, cache=tmp_path / "alone", progress=False) for part in parts_of(both)]
    joined = embed.embed(table, folder, both, cache=tmp_path / "joined", progress=False, shard=shard)
    assert np.array_equal(joined.X, np.hstack([part.X for part in alone]))
    assert joined.cell_ids.tolist() == table["cell_id"].tolist()
    assert joined.metadata["encoder"] == "+".join(part.metadata["encoder"] for part in alone)
    assert joined.metadata["fingerprint"] not in [part.metadata["fingerprint"] for part in alone]
    names = embed.dimension_names(joined)
    assert names[0] == "dimension 0" and names[alone[0].dim :] == list(FEATURE_NAMES)
    embed.write_embeddings(joined, tmp_path / "both.parquet")
    assert embed.dimension_names(embed.read_embeddings(tmp_path / "both.parquet")) == names


def test_its_cache_is_that_of_each_alone(both: str, cells: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    table, folder = cells
    for part in parts_of(both):
        embed.embed(table, folder, part, cache=tmp_path, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    embed.embed(table, folder, both, cache=tmp_path, progress=False)
    assert len(before) == 2 and {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that sees windows, and classical features that look at another size."""
    _, file = saved(tmp_path_factory.mktemp("weights"), TINY_CNN)
    return f"timm:{TINY_CNN}?image_size=64&framing=cell&weights={file}+morphometry?image_size=64"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", [None, 0, 1], ids=["nothing kept", "first kept", "second kept"])
def test_what_the_cache_has_of_one_is_taken_from_it(
    windows: str, kept: int | None, workers: int, cells: tuple[pd.DataFrame, Path], tmp_path: Path
) -> None:
    table, folder = cells
    names = parts_of(windows)
    alone = [embed.embed(table, folder, name, cache=tmp_path / "alone", progress=False, workers=0).X for name in names]
    some = table.sort_values("cell_id").iloc[8:16]  # the second of three shards
    if kept is not None:
        embed.embed(some, folder, names[kept], cache=tmp_path / "c", progress=False, workers=0, shard=8)
    mixed = table.sample(frac=1, random_state=1)
    found = embed.embed(mixed, folder, windows, cache=tmp_path / "c", progress=False, workers=workers, shard=8)
    assert np.array_equal(found.aligned(table["cell_id"]), np.hstack(alone))
    assert len(list((tmp_path / "c").iterdir())) == 6  # three shards of each: none was made twice


def test_an_image_is_segmented_once_for_all_that_look_at_one_size(
    windows: str, cells: tuple[pd.DataFrame, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, folder = cells
    seen: list[int] = []
    original = morphometry.see
    monkeypatch.setattr(morphometry, "see", lambda image: seen.append(image.shape[0]) or original(image))
    embed.embed(table, folder, windows, cache=tmp_path / "a", progress=False, workers=0)
    assert sorted(set(seen)) == [64, framing.LOOK] and len(seen) == 2 * len(table)
    seen.clear()
    same = windows.replace("morphometry?image_size=64", "morphometry")
    embed.embed(table, folder, same, cache=tmp_path / "b", progress=False, workers=0)
    assert seen == [framing.LOOK] * len(table)


def test_get_encoder_gives_both(both: str) -> None:
    model, transform = get_encoder(both)
    alone = [get_encoder(part) for part in parts_of(both)]
    images = [picture(k) for k in range(3)]
    wanted = np.hstack([encoder([own(image) for image in images]) for encoder, own in alone])
    assert np.array_equal(model([transform(image) for image in images]), wanted)
    assert model.dim == wanted.shape[1] and len(model.fingerprint) == 64
    with pytest.raises(ValueError, match="belong to one encoder; put them in its name"):
        get_encoder(both, image_size=64)


def test_the_most_exposed_part_counts() -> None:
    assert encoder_exposure("morphometry+dinobloom-s", "matek") == "unlabelled images"
    assert encoder_exposure("dinov2-s+morphometry", "matek") == "unknown"
    assert encoder_exposure("cytolib-small+morphometry", "pbc") == "unlabelled images"
    assert encoder_exposure("cytolib-small+morphometry", "pbc", "pbc_lilac") == "none"
    assert encoder_exposure("cytolib-small", "zheng1") == "none"
    assert encoder_exposure("cytolib-small+morphometry", "phantoms") == "unlabelled images"
    assert encoder_exposure("cytolib-small+morphometry", "phantoms", label=HELD_OUT) == "none"
