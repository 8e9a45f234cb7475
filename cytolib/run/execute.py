"""The verified stage step: execute, look at what really happened, and only then write the manifest.

papermill reports cells of a killed kernel, of a timed-out cell and after ``sys.exit(0)`` as completed. A stage is
finished here only if its process published a record that carries this execution's token, every code cell has run
without an error, and every output still hashes to what was published.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cytolib.run.artefacts import remove, remove_temporaries, sha256, write_json
from cytolib.run.kernels import Children, stage_environment
from cytolib.run.manifest import EXECUTORS, NAME, expected_key, input_sha256, read_manifest
from cytolib.run.processes import kill_marked
from cytolib.run.runners import run_notebook, run_script
from cytolib.run.stage import CHECKPOINTS, FOLDER_VARIABLE, PUBLICATION, REQUEST, hash_outputs
from cytolib.run.stages import Chain, StageSpec

FAILURE = ".failure.json"


class StageError(RuntimeError):
    """A stage did not finish; the message is one sentence."""


@contextmanager
def exclusive(path: Path, refusal: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock on a file. The system lets go of it when the process ends, however it ends.

    Raises:
        BlockingIOError: with ``refusal``, where another process still holds it after ``wait_s`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise BlockingIOError(refusal) from None
                time.sleep(0.1)
        yield


def execute_stage(
    spec: StageSpec,
    run_folder: Path,
    parameters: dict[str, Any],
    chain: Chain,
    *,
    threads: int | None = None,
    cell_timeout_s: int | None = None,
) -> dict[str, Any]:
    """Execute one stage in its folder under ``run_folder`` and return its manifest, which is written last.

    Args:
        spec: the stage.
        run_folder: folder of the run.
        parameters: effective values of all parameters of the stage.
        chain: the chain that the stage belongs to.
        threads: cores that it gets; None takes the stage's own number.
        cell_timeout_s: longest time of one cell (of the whole function, for scripts); None sets no limit.

    Raises:
        StageError: for anything but a complete, published and verified execution. No manifest stands then.
    """
    folder = run_folder.resolve() / spec.name
    remove(folder / NAME)
    lock = folder.parent / ".pipeline" / "locks" / spec.name
    try:
        with exclusive(lock, f"stage {spec.name}: another process is executing it in {folder}", wait_s=10):
            remove(folder / NAME)
            kill_marked(FOLDER_VARIABLE, str(folder))  # orphans of a killed execution still write here
            _clear(folder)
            manifest = _execute(spec, folder, parameters, chain, threads or spec.threads, cell_timeout_s)
            write_json(manifest, folder / NAME)
    except StageError as error:
        _note_failure(spec, folder, str(error))
        raise
    except BlockingIOError as error:
        raise StageError(str(error)) from None
    except OSError as error:  # a full disk, above all
        message = f"stage {spec.name}: {error}"
        _note_failure(spec, folder, message)
        raise StageError(message) from error
    return manifest


def _clear(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove what earlier executions left, so that nothing old is taken for new; checkpoints stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in (CHECKPOINTS, *keep):
            remove(path)
    remove_temporaries(folder / CHECKPOINTS)


def _note_failure(spec: StageSpec, folder: Path, message: str) -> None:
    """Keep the reason for ``cytolib status``; on a full disk, the stage's useless outputs make room."""
    note = {"stage": spec.name, "message": message, "time": time.time()}
    try:
        write_json(note, folder / FAILURE)
    except OSError:
        _clear(folder, keep=("log.txt", "failed.ipynb"))
        with suppress(OSError):  # the message is raised all the same
            write_json(note, folder / FAILURE)


def _execute(
    spec: StageSpec, folder: Path, parameters: dict[str, Any], chain: Chain, threads: int, limit_s: int | None
) -> dict[str, Any]:
    token = secrets.token_hex(16)
    key = expected_key(spec, parameters, chain)
    request = {"stage": spec.name, "token": token, "parameters": parameters, "needs": list(spec.needs)}
    write_json(request, folder / REQUEST)
    environment = stage_environment(folder, token, threads)
    started, start = time.gmtime(), time.monotonic()
    with Children() as children:
        if spec.kind == "notebook":
            error = run_notebook(chain.notebook(spec), folder, parameters, environment, limit_s)
        else:
            error = run_script(spec.entry, folder, environment, limit_s)
    kill_marked(FOLDER_VARIABLE, str(folder))  # workers of a killed kernel, which has left them to the system
    where = folder / ("failed.ipynb" if spec.kind == "notebook" else "log.txt")
    error = error or _publication_error(folder, spec, token, key, parameters, chain)
    if error:
        raise StageError(f"stage {spec.name}: {error}; see {where}")
    record = json.loads((folder / PUBLICATION).read_text(encoding="utf-8"))
    record.pop("token")
    manifest = {
        **record,
        "executor": EXECUTORS[spec.kind],
        "key": key,
        "parameters": parameters,
        "needs": list(spec.needs),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        "wall_seconds": round(time.monotonic() - start, 3),
        "peak_memory_bytes": children.peak_bytes,
    }
    if spec.kind == "notebook":
        final = folder / f"{spec.name}.ipynb"
        os.replace(folder / "failed.ipynb", final)
        manifest["notebook"] = {"name": final.name, "sha256": sha256(final), "bytes": final.stat().st_size}
    for name in (REQUEST, PUBLICATION):
        (folder / name).unlink()
    return manifest


def _publication_error(
    folder: Path, spec: StageSpec, token: str, key: str, parameters: dict[str, Any], chain: Chain
) -> str | None:
    """Why the publication in the folder does not prove a finished stage; None where it does."""
    try:
        record = json.loads((folder / PUBLICATION).read_text(encoding="utf-8"))
        if record["token"] != token or record["stage"] != spec.name:
            return "its publication is not of this execution"
        outputs, inputs = record["outputs"], record["inputs"]
    except FileNotFoundError:
        return "it ended without stage.publish(), which belongs in its last cell"
    except (OSError, ValueError, KeyError, TypeError):
        return "its publication cannot be read"
    try:
        now = hash_outputs(folder, spec.name)
    except (OSError, ValueError) as error:
        return str(error)
    for name in sorted({*outputs, *now}):
        if outputs.get(name) != now.get(name):
            return f"the output {name} was changed after stage.publish(); publish in the last cell"
    for item in inputs:
        try:
            upstream = read_manifest(folder.parent / item["stage"])["outputs"]
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        if input_sha256(upstream, item["name"]) != (item["kind"], item["sha256"]):
            return f"the input {item['stage']}/{item['name']} is not what that stage published"
    if expected_key(spec, parameters, chain) != key:
        return "its notebook was edited while it ran; run it again"
    return None
