"""On the other machine: look at it, run the stages of the bundle, and pack what is finished, whatever happens."""

from __future__ import annotations

import ast
import importlib
import io
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytolib.bundle.contents import BUNDLE, RESULTS, pack, split_in_pieces, write_contents
from cytolib.run.config import read_config
from cytolib.run.execute import FAILURE
from cytolib.run.manifest import NAME, read_manifest, verify
from cytolib.run.paths import runs_root, threads
from cytolib.run.pipeline import run_pipeline
from cytolib.run.plain_outputs import without_magics
from cytolib.run.record import device_name, versions
from cytolib.run.sources import read_notebook
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain
from cytolib.run.status import last_failure

Say = Callable[[str], None]


def write(text: str) -> None:
    """Print text as it is: `cytolib run` completes a line when its stage is done."""
    print(text, end="", flush=True)


HEARTBEAT_S = 60.0
LOGS = ("log.txt", "failed.ipynb", FAILURE)


def run_bundle(
    folder: Path, *, stages: Sequence[str] = (), check_only: bool = False, chain: Chain | None = None, say: Say = write
) -> int:
    """Run the stages of the bundle in ``folder`` and write ``results.tar`` there; 0 if all of them are done.

    Args:
        folder: the bundle; ``run.py`` has checked its files and set the environment.
        stages: of the bundle's; empty for all of them.
        check_only: look at the machine and run nothing.
        chain: None for the project's own, as the bundle carries it.

    Raises:
        ValueError: for a stage that is not the bundle's.
        RuntimeError: where the machine lacks something.
    """
    chain = chain or Chain()
    bundle = json.loads((folder / BUNDLE).read_text(encoding="utf-8"))
    for name in stages:
        if name not in bundle["stages"]:
            raise ValueError(f"--stages {name}: not of this bundle, whose stages are {', '.join(bundle['stages'])}")
    wanted = [name for name in bundle["stages"] if not stages or name in stages]
    config = folder / "project" / "configs" / bundle["config"]
    check_machine(wanted, chain, bundle["versions"], say)
    if check_only:
        return 0
    codes = []
    try:
        for name in wanted:
            with _heartbeat(runs_root() / bundle["run"] / name / "log.txt", say):
                codes.append(
                    run_pipeline(
                        config, cores=threads(), until=name, plain=True, trusted=bundle["carried"], chain=chain,
                        say=say,
                    )
                )  # fmt: skip
            pack_results(folder, bundle, chain)
    finally:
        paths, done = pack_results(folder, bundle, chain)
        sizes = size_text(sum(path.stat().st_size for path in paths))
        say(f"finished: {', '.join(done) or 'nothing'} of {', '.join(bundle['stages'])}\n")
        say(f"bring back: {', '.join(path.name for path in paths)} ({sizes}), in {folder}\n")
    return int(any(codes))


def check_machine(wanted: Sequence[str], chain: Chain, made_with: dict[str, str], say: Say) -> None:
    """Import what the stages import and try the whole way of the data once; versions are told, not judged.

    Raises:
        RuntimeError: naming every package that is missing, or what does not work.
    """
    missing: dict[str, str] = {}
    for name in wanted:
        for statement in stage_imports(name, chain):
            try:
                exec(statement, {})  # noqa: S102, an import statement of our own notebook
            except ModuleNotFoundError as error:
                missing[error.name or "?"] = str(error)
            except Exception as error:  # a broken package fails with whatever it likes
                raise RuntimeError(f"{statement!r} fails here: {type(error).__name__}: {error}") from error
    if missing:
        raise RuntimeError(
            f"this Python lacks {', '.join(sorted(missing))}; install them, or make the bundle with "
            "`--with PACKAGE --python VERSION`, which carries them"
        )
    here = versions()
    for name, version in sorted(here.items()):
        other = made_with.get(name)
        say(f"  {name:<18} {version}{f'  (bundle made with {other})' if other and other != version else ''}\n")
    try:
        try_everything()
    except Exception as error:  # whatever the packages raise, the message is what helps
        raise RuntimeError(f"a small trial of all parts fails here: {type(error).__name__}: {error}") from error
    say(f"  {'device':<18} {device_name()}, {threads()} cores\n")
    if device_name() == "cpu":
        say("  note: torch finds no accelerator here; everything runs on the CPU, slowly\n")


def stage_imports(name: str, chain: Chain) -> Iterator[str]:
    """The import statements of a stage, one at a time."""
    spec = chain[name]
    if spec.kind == "script":
        yield f"import {spec.entry.partition(':')[0]}"
        return
    for cell in read_notebook(chain.notebook(spec))["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.parse(without_magics(cell["source"])).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield ast.unparse(node)


def try_everything() -> None:
    """Train a tiny model on the device, save it, open it, draw from it; write and read a table."""
    import numpy as np
    import pandas as pd

    diffusion = importlib.import_module("cytolib.diffusion")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(32, 8)).astype(np.float32), np.array(["lymphocyte", "monocyte"] * 16)
    training = diffusion.train(X, y, class_names=["lymphocyte", "monocyte"], steps=2, batch_size=8, width=16, depth=1)
    *_, step = training
    with tempfile.TemporaryDirectory() as folder:
        step.pipeline().save_pretrained(folder)
        again = diffusion.EmbeddingDiffusionPipeline.from_pretrained(folder)
    drawn = again(["lymphocyte"], seeds=[0], num_inference_steps=2).embeddings
    table = io.BytesIO()
    pd.DataFrame(drawn, columns=[f"x{k}" for k in range(drawn.shape[1])]).to_parquet(table)
    if not np.array_equal(pd.read_parquet(io.BytesIO(table.getvalue())).to_numpy(), drawn):
        raise RuntimeError("a table does not come back from parquet as it was written")


@contextmanager
def _heartbeat(log: Path, say: Say) -> Iterator[None]:
    """Every minute, the last line that the stage has printed, so that nobody takes a long stage for a dead one."""
    over, started = threading.Event(), time.monotonic()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            try:
                text = log.read_text(encoding="utf-8", errors="replace")[-2000:].replace("\r", "\n").strip()
            except OSError:
                text = ""
            last = text.splitlines()[-1][:100] if text else ""
            say(f"\n   {(time.monotonic() - started) / 60:.0f} min, still at work: {last}\n")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def pack_results(folder: Path, bundle: dict[str, Any], chain: Chain) -> tuple[list[Path], list[str]]:
    """Write ``results.tar`` (or its pieces) in ``folder`` from the stages that verify; logs of the others go along."""
    config = read_config(folder / "project" / "configs" / bundle["config"], chain)
    run_folder, state = runs_root() / bundle["run"], {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".results") as name:
        packed = Path(name)
        for stage in bundle["stages"]:
            source = run_folder / stage
            if not verify(chain[stage], run_folder, config.parameters[stage], chain):
                state[stage] = "done"
                manifest = read_manifest(source)
                files = [
                    NAME,
                    *manifest["outputs"],
                    *([manifest["notebook"]["name"]] if manifest.get("notebook") else []),
                ]
                _copy_all(source, packed / "stages" / stage, files)
            else:
                failure = last_failure(source)
                state[stage] = failure["message"] if failure else "not finished"
                _copy_all(source, packed / "logs" / stage, LOGS)
        machine = {"versions": versions(), "device": device_name()}
        write_contents(packed, RESULTS, run=bundle["run"], config=bundle["config"], state=state, machine=machine)
        pack(packed, folder / "results.tar")
    return split_in_pieces(folder / "results.tar"), [stage for stage, said in state.items() if said == "done"]


def _copy_all(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
