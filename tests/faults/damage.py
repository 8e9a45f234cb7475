"""Outputs, manifests, caches and checkpoints that somebody or something has damaged: noticed, and mended by a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.trial import Trial, Undisturbed, check

FIGURES, WEIGHTS = "10_figures", "02_train_diffusion"
#: How a case damages a copy; the stage that must be stale afterwards, and words of its reasons.
Damage = tuple[Callable[[Trial], None], str, tuple[str, ...]]
_CHANGED = "was changed or damaged"


def flip_byte(path: Path, place: float = 0.5) -> None:
    """Change one bit of one byte; size and times stay."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    os.truncate(path, int(path.stat().st_size * share))


def swap(first: Path, second: Path) -> None:
    """Let two files change places."""
    aside = first.with_name(".aside")
    os.replace(first, aside)
    os.replace(second, first)
    os.replace(aside, second)


def _link(path: Path, target: Path) -> None:
    os.replace(path, target)
    path.symlink_to(target)


def _outputs(trial: Trial, stage: str, pattern: str) -> list[Path]:
    found = sorted((trial.run_folder / stage).glob(pattern))
    check(bool(found), f"no output {pattern} in {stage}")
    return found


def _manifest(trial: Trial, stage: str = FIGURES) -> Path:
    return trial.run_folder / stage / "manifest.json"


def _flip_weights(trial: Trial) -> None:
    flip_byte(_outputs(trial, WEIGHTS, "model/denoiser/*.safetensors")[0])


def _swap_figures(trial: Trial) -> None:
    swap(*_outputs(trial, FIGURES, "figures/*.pdf")[:2])


def _harm_outputs(trial: Trial) -> None:
    """Six outputs of one stage, each in another way."""
    tables, pictures = (_outputs(trial, FIGURES, f"**/*.{kind}") for kind in ("csv", "png"))
    truncate(tables[0])
    _link(tables[1], trial.folder / "elsewhere.csv")
    flip_byte(pictures[0])
    pictures[1].unlink()
    pictures[2].unlink()
    pictures[2].mkdir()
    _swap_figures(trial)
    _edit_notebook(trial)


def _link_folder(trial: Trial) -> None:
    _link(trial.run_folder / FIGURES / "figures", trial.folder / "elsewhere")


def _edit_notebook(trial: Trial) -> None:
    flip_byte(trial.run_folder / FIGURES / f"{FIGURES}.ipynb")


def _manifest_garbage(trial: Trial) -> None:
    _manifest(trial).write_bytes(bytes(range(256)) * 40)


def _manifest_flipped(trial: Trial) -> None:
    path = _manifest(trial)
    text = path.read_text()
    place = text.index('"sha256"', text.index('"outputs"')) + 14
    path.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])


def _manifest_truncated(trial: Trial) -> None:
    truncate(_manifest(trial))


def _manifest_empty(trial: Trial) -> None:
    truncate(_manifest(trial), 0)


def _manifest_swapped(trial: Trial) -> None:
    swap(_manifest(trial), _manifest(trial, "04_augment_classifiers"))


def _manifest_link(trial: Trial) -> None:
    _link(_manifest(trial), trial.folder / "elsewhere.json")


def _manifest_is_folder(trial: Trial) -> None:
    _manifest(trial).unlink()
    _manifest(trial).mkdir()


def _manifest_climbs(trial: Trial) -> None:
    values = json.loads(_manifest(trial).read_text())
    values["outputs"]["../../../etc/passwd"] = next(iter(values["outputs"].values()))
    _manifest(trial).write_text(json.dumps(values))


DAMAGES: dict[str, Damage] = {
    "weights: a byte flipped": (_flip_weights, WEIGHTS, (_CHANGED,)),
    "outputs truncated, flipped, deleted, swapped, a link, a folder; notebook edited": (
        _harm_outputs, FIGURES,
        (*(f"{name} {_CHANGED}" for name in (".csv", ".png", ".pdf", ".ipynb")), "is missing", "is no plain file"),
    ),
    "two figures swapped": (_swap_figures, FIGURES, (_CHANGED,)),
    "output's folder is a link": (_link_folder, FIGURES, ("lies behind a link",)),
    "manifest garbage": (_manifest_garbage, FIGURES, ("not a readable manifest",)),
    "manifest: a hash changed": (_manifest_flipped, FIGURES, (_CHANGED,)),
    "manifest truncated": (_manifest_truncated, FIGURES, ("not a readable manifest",)),
    "manifest emptied": (_manifest_empty, FIGURES, ("not a readable manifest",)),
    "manifests of two stages swapped": (_manifest_swapped, FIGURES, ("was written by",)),
    "manifest is a link": (_manifest_link, FIGURES, ("no plain file",)),
    "manifest is a folder": (_manifest_is_folder, FIGURES, ("no plain file",)),
    "manifest climbs out": (_manifest_climbs, FIGURES, ("no path inside a stage folder",)),
}  # fmt: skip
#: The others are variations of these, and played with ``--all``.
ALWAYS = (*list(DAMAGES)[:2], "manifest garbage", "manifests of two stages swapped")


def play_damage(base: Undisturbed, folder: Path, name: str) -> tuple[str, str]:
    """Damage a copy: ``status`` says so with the reason, and a run mends it."""
    damage, stage, words = DAMAGES[name]
    trial = Trial(base, folder)
    damage(trial)
    reasons = trial.reasons()
    for word in words:
        check(any(word in why for why in reasons[stage]), f"expected {word!r} of {stage}, found {reasons[stage]}")
    status = trial.start("status").wait()
    check(status.code == 1 and stage in status.text, f"cytolib status: {status.code}: {status.text[-300:]}")
    trial.mend()
    return f"{stage}: {reasons[stage][0]}", "mended: equal"


def play_cache(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """A flipped byte in a cached shard of embeddings: it is computed again."""
    trial = Trial(base, folder)
    shard = next(trial.cache.rglob("*.parquet"))
    shutil.rmtree(trial.run_folder / "01_embed")
    flip_byte(shard, 0.3)
    trial.mend("--until", "01_embed")
    return "", "computed again: equal"


def play_checkpoint(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """A damaged checkpoint of the training and damaged shards of the sweep: unused, and nobody has to clean up."""
    trial = Trial(base, folder)
    for stage, pattern in ((WEIGHTS, "checkpoints/*.pt"), ("04_sweep", "checkpoints/*.*")):
        for number, file in enumerate(_outputs(trial, stage, pattern)):
            truncate(file) if number % 3 == 1 else flip_byte(file)
        (trial.run_folder / stage / "manifest.json").unlink()
    said = trial.mend()
    return said.text.splitlines()[0], "trained again: equal"


def play_parameters(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """Changed parameters after all memory of the engine is lost; back again; then the manifest of the changed run."""
    trial = Trial(base, folder)
    trial.configure(FIGURES, metric="accuracy")
    reasons = trial.reasons()
    check([name for name, why in reasons.items() if why] == [FIGURES], f"stale are {reasons}")
    there = trial.run()
    there.sentence(0, "parameter metric changed", f"{FIGURES} ... ")
    check("04_augment_classifiers ..." not in there.text, f"more was run than needed: {there.text}")
    other = _manifest(trial).read_bytes()
    shutil.rmtree(trial.run_folder / ".pipeline")
    trial.configure(FIGURES)
    trial.mend().sentence(0, "parameter metric changed")
    _manifest(trial).write_bytes(other)
    trial.mend().sentence(0, "parameter metric changed")
    return there.text.splitlines()[0], "and back: equal"


def play_engine_memory(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """Rubbish where Snakemake, the plan and the events of a killed run lie."""
    trial = Trial(base, folder)
    _outputs(trial, FIGURES, "figures/*.png")[0].unlink()
    hidden = trial.run_folder / ".pipeline"
    for name in ("incomplete", "metadata", "locks"):
        (hidden / ".snakemake" / name).mkdir(parents=True)
        (hidden / ".snakemake" / name / "Li4vMTBfZmlndXJlcy9tYW5pZmVzdC5qc29u").write_text('{"torn')
    (hidden / "plan-1.json").write_text('{"torn')
    (hidden / "events-1.jsonl").write_text('{"torn')
    (hidden / "previous" / FIGURES).mkdir(parents=True)
    (hidden / "previous" / FIGURES / "manifest.json").write_text('{"torn')
    said = trial.mend()
    return said.text.splitlines()[0], "mended: equal"
