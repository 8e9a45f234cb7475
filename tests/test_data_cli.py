"""The command ``cytolib data``: what it prints, and what its exit code says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytolib.cli import main
from cytolib.data import registry, resume
from cytolib.data.cards import DataSet, Download
from cytolib.data.download import CHECKSUMS
from cytolib.data.readers import Reading
from cytolib.data.readers.folders import read_image_folder
from tests.conftest import REPOSITORY
from tests.local_server import Site, serve
from tests.test_data_download import zipped


def read_toy(root: Path, scratch: Path) -> Reading:
    assert scratch.is_dir()
    return read_image_folder(root, "toy", dataset="toy", um_per_px=0.1, progress=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYTOLIB_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def add_card(monkeypatch: pytest.MonkeyPatch, *downloads: Download, counted: bool = True) -> None:
    card = DataSet(
        name="toy",
        title="Toy cells",
        citation="Nobody, Nowhere 1 (2020)",
        source="doi 10.0/0",
        licence="CC BY 4.0",
        folder="toy",
        layout="toy/<class>/<name>.png",
        n_cells=6,
        counts={"basophil": 3, "monocyte": 3} if counted else {},
        read=read_toy,
        downloads=downloads,
        steps=("Ask Nobody.", "Unpack it."),
    )
    monkeypatch.setitem(registry.DATA_SETS, "toy", card)


def draw(root: Path) -> Path:
    """Six cells of two classes, of which no two look alike."""
    chance = np.random.default_rng(0)
    for name in ("basophil", "monocyte"):
        (root / "toy" / name).mkdir(parents=True)
        for k in range(3):
            pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(root / "toy" / name / f"{k}.png")
    return root / "toy"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_list_names_every_data_set_and_where_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(monkeypatch)
    code, out, _ = run(capsys, "list")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert code == 0 and {"phantoms", "folder:NAME", "csv:FILE", *registry.DATA_SETS} <= set(rows)
    assert "by hand" in rows["toy"] and "CC BY 4.0" in rows["toy"] and rows["toy"].endswith("Toy cells")
    add_card(monkeypatch, Download("https://example.org/toy.zip", "toy.zip"))
    assert " get " in next(line for line in run(capsys, "list")[1].splitlines() if line.startswith("toy"))
    draw(root)
    assert " yes " in next(line for line in run(capsys, "list")[1].splitlines() if line.startswith("toy"))


def test_list_as_json(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add_card(monkeypatch, Download("https://example.org/toy.zip", "toy.zip", megabytes=3))
    rows = {row["name"]: row for row in json.loads(run(capsys, "list", "--json")[1])}
    assert {"phantoms", "folder:NAME", "csv:FILE", *registry.DATA_SETS} == set(rows)
    toy = rows["toy"]
    assert toy["n_cells"] == 6 and toy["counts"] == {"basophil": 3, "monocyte": 3} and toy["downloadable"] is True
    assert toy["downloads"][0]["megabytes"] == 3 and toy["present"] is False


def test_get_by_hand_prints_the_steps_and_is_not_done(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(monkeypatch)
    code, out, err = run(capsys, "get", "toy")
    assert code == 1 and err == ""
    assert out.splitlines()[:3] == ["toy: not downloaded: do this", "  1. Ask Nobody.", "  2. Unpack it."]
    for part in ("CC BY 4.0", "Nobody, Nowhere 1 (2020)", "doi 10.0/0", f"{root}/toy/<class>/<name>.png"):
        assert part in out
    draw(root)
    code, out, _ = run(capsys, "get", "toy")
    assert code == 0 and "is there already; nothing done" in out


def test_get_fetches_then_check_is_content(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw(root)
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}
    (elsewhere := root / "a root").mkdir()
    with serve() as site:
        site.files["toy.zip"] = zipped(files)
        add_card(monkeypatch, Download(site.url + "toy.zip", "toy.zip"))
        code, out, err = run(capsys, "get", "toy", "--to", str(elsewhere))
    assert code == 0 and err == "" and f"export CYTOLIB_DATA='{elsewhere}'" in out
    assert {p.name for p in elsewhere.iterdir()} == {"toy", CHECKSUMS}
    code, out, _ = run(capsys, "check", "toy", "--root", str(elsewhere))
    assert code == 0 and out.splitlines()[-1] == "all is as published"
    assert "6, as published" in out and "vouched for by nobody but the first download" in out
    assert "0.1 to 0.1 um a pixel" in out and "basophil 3, monocyte 3" in out


def test_check_says_what_is_wrong_by_name(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(monkeypatch)
    folder = draw(root)
    (folder / "basophil/0.png").unlink()
    code, out, _ = run(capsys, "check", "toy")
    assert code == 1 and "5 of 6 published (83.3 %): a partial copy" in out and "basophil: 2 of 3" in out
    assert out.splitlines()[-1] == "NOT as published"
    add_card(monkeypatch, counted=False)
    assert run(capsys, "check", "toy")[0] == 1, "a wrong total is enough"
    add_card(monkeypatch)

    (folder / "basophil/0.png").write_bytes((folder / "basophil/1.png").read_bytes()[:90])
    code, out, _ = run(capsys, "check", "toy")
    assert code == 1 and "refused     1 files" in out and "  toy/basophil/0.png: " in out

    (folder / "basophil/0.png").write_bytes((folder / "monocyte/1.png").read_bytes())
    code, out, _ = run(capsys, "check", "toy")
    assert code == 0, "an identical pair is said, and is how sets are published"
    assert "  toy/monocyte/1.png = toy/basophil/0.png, under another label" in out

    pixels = np.asarray(Image.open(folder / "monocyte/1.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "basophil/0.png")
    code, out, _ = run(capsys, "check", "toy")
    assert code == 0 and "toy/basophil/0.png ~ toy/monocyte/1.png (0 bits)" in out and "identical   0 files" in out

    Image.new("RGB", (64, 64), "red").save(folder / "basophil/7.png")
    code, out, _ = run(capsys, "check", "toy")
    assert code == 1 and "7 of 6 published (116.7 %): more than published" in out


def test_long_lists_are_cut_unless_all_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(monkeypatch)
    folder = draw(root)
    for k in range(25):
        (folder / "basophil" / f"broken{k:02}.png").write_bytes(b"no image")
    assert "  and 5 more: --all names them" in run(capsys, "check", "toy")[1]
    out = run(capsys, "check", "toy", "--all")[1]
    assert "broken24.png" in out and "more: --all" not in out


def test_own_folders_are_checked_without_published_numbers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(root)
    code, out, _ = run(capsys, "check", "folder:toy")
    assert code == 0 and "no published number" in out and out.splitlines()[-1] == "all is readable"
    (root / "toy/basophil/broken.png").write_bytes(b"no image")
    code, out, _ = run(capsys, "check", "folder:toy")
    assert code == 1 and "refused     1 files" in out
    code, out, _ = run(capsys, "get", "folder:mine")
    assert code == 1 and f"Put your files at {root}/mine." in out and "cytolib data check folder:mine" in out


@pytest.mark.parametrize("action", ["get", "check"])
def test_phantoms_need_nothing(action: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, action, "phantoms")
    assert code == 0 and "notebook 00 draws them" in out


@pytest.mark.parametrize("action", ["get", "check"])
def test_unknown_names_get_the_nearest_known_one(action: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, action, "pcb")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "no data set is called 'pcb'; did you mean pbc?" in err
    assert "`cytolib data list` shows them all" in run(capsys, action, "zzzzzz")[2]


def test_check_of_what_is_not_there_says_how_to_get_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_card(monkeypatch)
    code, _, err = run(capsys, "check", "toy")
    assert code == 2 and f"{root}/toy: not there; `cytolib data get toy` fetches toy or says how" in err


def test_a_refusing_server_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as site:
        add_card(monkeypatch, Download(site.url + "gone.zip", "gone.zip"))
        code, _, err = run(capsys, "get", "toy")
    assert code == 2 and err.count("\n") == 1 and "gone.zip: the server answers 404 Not Found" in err


SCRIPT = """
import sys
from cytolib.cli import main
from cytolib.data import registry
from tests.test_data_cli import read_toy
from cytolib.data.cards import DataSet, Download
registry.DATA_SETS["toy"] = DataSet("toy", "t", "c", "s", "l", "toy", "toy/<class>/<name>.png", 6, read_toy,
                                    downloads=(Download(sys.argv[1], "toy.zip"),))
sys.exit(main(["data", "get", "toy"]))
"""


@pytest.fixture
def slow_site() -> Iterator[Site]:
    with serve() as site:
        site.files["toy.zip"] = zipped({"toy/basophil/0.png": os.urandom(3_000_000)})
        site.stall_after = 1_500_000
        yield site


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_whatever_ends_it_the_same_command_goes_on(
    ending: signal.Signals, code: int, root: Path, slow_site: Site
) -> None:
    command = [sys.executable, "-c", SCRIPT, slow_site.url + "toy.zip"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = root / ".downloads/toy/toy.zip.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1_000_000):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    process.send_signal(ending)
    # A signal that comes between Python's last look and a blocking read is seen when that read times out.
    out, err = process.communicate(timeout=resume.TIMEOUT_S + 30)
    assert process.returncode == code
    if ending == signal.SIGINT:
        assert "are kept in" in out and "the same command goes on from there" in err
    came = part.stat().st_size
    assert came > 1_000_000 and not (root / "toy").exists()
    slow_site.stall_after, slow_site.sent = None, 0
    slow_site.requests.clear()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    assert slow_site.asked("Range") == [f"bytes={came}-"] and slow_site.sent < 3_100_000 - came
    assert (root / "toy/basophil/0.png").stat().st_size == 3_000_000


def test_a_real_copy_that_is_partial_is_said_to_be(
    real_data: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One class, and one cell of PBC that its publishers filed under two classes."""
    there, here = real_data / "PBC_dataset_normal_DIB", root / "PBC_dataset_normal_DIB"
    for name in ("neutrophil/BNE_191112.jpg", "eosinophil/EO_225902.jpg"):
        (here / name).parent.mkdir(parents=True)
        (here / name).symlink_to(there / name)
    (here / "basophil").symlink_to(there / "basophil")
    found = 2 + sum(1 for _ in (there / "basophil").glob("*.jpg"))
    code, out, _ = run(capsys, "check", "pbc")
    assert code == 1 and f"{found:,} of 17,092 published" in out and "a partial copy" in out
    assert "refused     0 files" in out and "  LY: 0 of 1,214" in out
    assert "neutrophil/BNE_191112.jpg = PBC_dataset_normal_DIB/eosinophil/EO_225902.jpg, under another label" in out
