"""Embedding at scale: processes and threads give the same, errors stay one sentence, a kill costs one shard."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from cytolib import embedding_cache
from cytolib import embedding_loader as loader
from cytolib import embedding_pool as pool
from cytolib.data.images import cell_id
from cytolib.embed import embed, embed_shards
from cytolib.encoders import get_encoder
from cytolib.inference import Forward
from cytolib.transforms import ResizeNormalise

N = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for k in range(N):
        noise = np.random.default_rng(k).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((48, 48)).save(folder / f"cell{k:02d}.png")
    return folder


@pytest.fixture(scope="module")
def cells(root: Path) -> pd.DataFrame:
    files = sorted(root.glob("*.png"))
    return pd.DataFrame({"cell_id": [cell_id(file) for file in files], "path": [file.name for file in files]})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import timm
    from safetensors.torch import save_file

    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict(), weights)
    return f"timm:mobilenetv3_small_050?image_size=32&weights={weights}"


@pytest.mark.parametrize("framing", ["whole", "cell"])
def test_processes_threads_batches_and_shards_give_the_same(
    framing: str, cells: pd.DataFrame, root: Path, encoder: str, tmp_path: Path
) -> None:
    encoder = f"{encoder}&framing={framing}"
    threads = embed(cells, root, encoder, workers=0, cache=tmp_path / "a", progress=False)
    processes = embed(cells, root, encoder, workers=2, shard=10, cache=tmp_path / "b", progress=False)
    assert threads.X.tobytes() == processes.X.tobytes()  # batches are cut elsewhere: 10 is no multiple of 4
    assert threads.metadata == processes.metadata
    model, transform = get_encoder(encoder, batch_size=7)
    one_by_one = [model([transform(Image.open(root / path))])[0] for path in cells["path"]]
    scale = np.abs(threads.X).max()
    assert np.abs(threads.X - one_by_one).max() < 1e-5 * scale
    assert np.ptp(threads.X, axis=0).max() > 0.1 * scale


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_the_same_sentence_from_a_thread_and_a_process(
    workers: int, cells: pd.DataFrame, root: Path, encoder: str, tmp_path: Path
) -> None:
    broken = root.parent / f"{root.name}_broken{workers}"
    broken.mkdir()
    for path in cells["path"]:
        (broken / path).write_bytes((root / path).read_bytes())
    (broken / "cell07.png").write_bytes((root / "cell07.png").read_bytes()[:200])
    changed = cells.copy()
    changed.loc[7, "cell_id"] = cell_id(broken / "cell07.png")
    with pytest.raises(ValueError, match=r"cell07\.png: not a readable image") as caught:
        embed(changed, broken, encoder, workers=workers, cache=tmp_path, progress=False)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    (broken / "cell07.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"cell07\.png: the cell table names it") as gone:
        embed(changed, broken, encoder, workers=workers, cache=tmp_path, progress=False)
    assert "\n" not in str(gone.value)


class _Dying:
    """Kills the process that loads the third cell."""

    def __call__(self, tasks: list[int]) -> dict[int, np.ndarray]:
        if tasks[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {0: np.array(tasks)}


@pytest.mark.parametrize(
    "mapped",
    [
        partial(pool.in_processes, workers=1, pin=False),
        partial(pool.in_pool, workers=1),
        partial(pool.in_pool, workers=1, turn=8),
    ],
    ids=["loader", "pool ahead", "pool in turns"],
)
def test_a_killed_worker_gives_one_sentence(mapped: Callable[..., Iterator[Any]]) -> None:
    with pytest.raises(RuntimeError, match="a worker process died.*workers=0") as caught, pool.worker_deaths():
        list(mapped(_Dying(), [[k] for k in range(8)]))
    assert "\n" not in str(caught.value)
    subprocess.run(["true"], check=True)  # a child that ends while the traceback is held: the death is not raised again
    os.kill(os.getpid(), signal.SIGCHLD)
    with pytest.raises(RuntimeError, match="out of paper"), pool.worker_deaths():
        raise RuntimeError("out of paper")  # other errors pass as they are


def _bad_third(k: int) -> int:
    if k == 3:
        raise ValueError("three")
    return k


def test_a_turn_with_an_error_gives_what_came_before_it() -> None:
    results = pool.in_turns(_bad_third, range(8), threads=2, turn=8)
    seen: list[int] = []
    with pytest.raises(ValueError, match="three"):
        for k in results:
            seen.append(k)
    assert seen == [0, 1, 2]


def test_no_worker_outlives_an_error_whose_traceback_is_held(
    cells: pd.DataFrame, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, where IPython keeps the last error: memory and processes are given back at once."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedding_cache, "write_embeddings", full)
    with pytest.raises(OSError, match="No space left") as held:
        embed(cells, root, "cytolib-small", workers=2, cache=tmp_path, progress=False, shard=8)
    assert not [child for child in psutil.Process().children(recursive=True) if "spawn_main" in str(child.cmdline())]
    assert held.value.errno == errno.ENOSPC


def test_nothing_runs_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for k in range(1000):
            taken.append(k)
            yield k

    results = pool.in_threads(lambda k: k * k, items(), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) <= 5 + 2 * 2
    assert list(results) == [k * k for k in range(5, 1000)]


def test_pixels_and_normalise_are_the_transform() -> None:
    transform = ResizeNormalise(32, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8))
    pixels = transform.pixels(image)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    expected = (pixels.transpose(2, 0, 1) / 255 - np.reshape(transform.mean, (3, 1, 1))) / np.reshape(
        transform.std, (3, 1, 1)
    )
    assert np.abs(transform(image).numpy() - expected).max() < 1e-6
    both = transform.normalise(torch.from_numpy(np.stack([pixels, pixels])))
    assert torch.equal(both[1], transform(image))


def test_a_row_does_not_depend_on_its_batch(encoder: str) -> None:
    model, transform = get_encoder(encoder)
    assert isinstance(model.forward, Forward) and model.batch_size == 8
    assert isinstance(transform, ResizeNormalise)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (17, 32, 32, 3), dtype=np.uint8))
    seen: list[int] = []
    hook = model.forward.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    whole = model(pixels)
    hook.remove()
    assert whole.shape == (17, model.dim) and seen == [8, 8, 8]  # the last pass is padded
    for rows in ([0], [8, 3], [5, 1, 7, 2, 6]):
        assert np.array_equal(model(pixels[rows]), whole[rows])
    assert np.array_equal(model(transform.normalise(pixels)), whole)  # floats and bytes are the same cells


def test_bfloat16_is_close_recorded_and_another_key(
    cells: pd.DataFrame, root: Path, encoder: str, tmp_path: Path
) -> None:
    plain = embed(cells, root, encoder, precision="float32", cache=tmp_path, progress=False)
    half = embed(cells, root, encoder, precision="bfloat16", cache=tmp_path, progress=False)
    cosine = (plain.X * half.X).sum(1) / np.linalg.norm(plain.X, axis=1) / np.linalg.norm(half.X, axis=1)
    assert cosine.min() > 0.99 and not np.array_equal(plain.X, half.X)
    assert half.X.dtype == np.float32
    assert (plain.metadata["dtype"], half.metadata["dtype"]) == ("float32", "bfloat16")
    assert plain.metadata["fingerprint"] != half.metadata["fingerprint"]
    if not torch.accelerator.is_available():
        auto, _ = get_encoder(encoder)
        assert auto.fingerprint == plain.metadata["fingerprint"]
    else:
        assert get_encoder(encoder)[0].metadata["dtype"] == "bfloat16"


def test_shards_give_what_embed_gives(cells: pd.DataFrame, root: Path, encoder: str, tmp_path: Path) -> None:
    whole = embed(cells, root, encoder, cache=tmp_path / "a", progress=False)
    half = cells.sort_values("cell_id").iloc[8:16]
    embed(half, root, encoder, shard=8, cache=tmp_path / "b", progress=False)  # the second of three shards
    seen = []
    for rows, part in embed_shards(cells, root, encoder, shard=8, cache=tmp_path / "b", progress=False):
        assert len(part) == 8 and part.metadata == whole.metadata
        assert part.cell_ids.tolist() == cells["cell_id"].iloc[rows].tolist()
        assert np.array_equal(part.X, whole.X[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(N))
    assert sorted(seen[:8]) == sorted(half.index)  # what the cache has comes first


KILLED = """
import sys, time
import pandas as pd
from cytolib import embedding_loader
from cytolib.embed import embed
original = embedding_loader.Preparation.__call__
def slowly(self, work):
    time.sleep(0.2)
    return original(self, work)
embedding_loader.Preparation.__call__ = slowly
embed(pd.read_parquet(sys.argv[1]), sys.argv[2], shard=4, workers=0, cache=sys.argv[3], progress=False)
"""


def test_a_killed_run_loses_at_most_a_shard(
    cells: pd.DataFrame, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, cache = tmp_path / "cells.parquet", tmp_path / "cache"
    cells.to_parquet(table)
    started = subprocess.Popen([sys.executable, "-c", KILLED, str(table), str(root), str(cache)])
    try:
        deadline = time.monotonic() + 120
        while len(list(cache.glob("[!.]*.parquet"))) < 2:
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        started.kill()  # SIGKILL: nothing is tidied up
        started.wait()
    done = len(list(cache.glob("[!.]*.parquet")))
    assert 2 <= done < 6
    original, sizes = loader.Preparation.__call__, []

    def counted(self: loader.Preparation, work: loader.Work) -> dict[int, np.ndarray]:
        sizes.append(len(work.tasks))
        return original(self, work)

    monkeypatch.setattr(loader.Preparation, "__call__", counted)
    resumed = embed(cells, root, shard=4, workers=0, cache=cache, progress=False)
    assert sum(sizes) == N - 4 * done
    assert np.array_equal(resumed.X, embed(cells, root, workers=0, cache=tmp_path / "other", progress=False).X)


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> Callable[[int], int]:
    """Peak bytes allocated while n cells of 2 KB go through embed_shards; images are replaced by their numbers."""
    monkeypatch.setattr(
        loader.Preparation, "__call__", lambda self, work: {0: np.ones((len(work.tasks), 512), dtype=np.float32)}
    )

    def measured(n: int) -> int:
        ids = [f"{k:064x}" for k in range(n)]
        table = pd.DataFrame({"cell_id": ids, "path": "x.png"})
        shards = embed_shards(table, root, shard=64, workers=0, cache=tmp_path / str(n), progress=False)
        next(shards)  # what stays for the run: the row order and the ids
        tracemalloc.start()
        for _ in shards:
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    return measured


def test_memory_does_not_grow_with_the_number_of_cells(peak: Callable[[int], int]) -> None:
    small, large = peak(512), peak(4096)
    assert large - small < 0.1 * (4096 - 512) * 512 * 4  # a tenth of what the embeddings themselves take
