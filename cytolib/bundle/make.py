"""Making the bundle: code, notebooks, configuration, wheels and finished stages in one folder, and that as a tar."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cytolib.bundle.contents import BUNDLE, pack, write_contents
from cytolib.run.artefacts import atomic_path
from cytolib.run.config import RunConfig, read_config
from cytolib.run.manifest import NAME, read_manifest, stale_stages
from cytolib.run.paths import root, runs_root
from cytolib.run.record import versions
from cytolib.run.stage import size_text
from cytolib.run.stages import Chain

MAX_BYTES = 60_000_000
HEAVY = ("02_train_diffusion", "04_sweep")
# With images there: reads them too.
PICTURED = ("01_embed", "03_sample")
# What other stages read of these; of any other stage everything travels.
READ = {
    "00_data": ("cells.parquet", "factors.parquet", "images/"),
    "01_embed": ("embeddings.parquet",),
}
README = """\
Carry this folder, or its tar, to the machine with the GPU. There:

    tar xf {name}.tar
    cd {name}
    python3 run.py

It checks the machine, runs {stages} of the run {run!r}, and writes results.tar
(in pieces of 16 MB, where it is larger). It can be stopped and started again.
Bring results.tar back, and in the project take it in:

    cytolib bundle take results.tar
"""


def make_bundle(
    config_path: Path,
    out: Path,
    wheels: Sequence[Path],
    *,
    stages: Sequence[str] = (),
    images: Path | None = None,
    chain: Chain | None = None,
    max_bytes: int = MAX_BYTES,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the folder ``out`` and ``out``.tar beside it; returns the tar.

    Args:
        config_path: the run's configuration. Every stage that the wanted ones need must be done.
        out: replaced as a whole.
        wheels: what the other machine lacks.
        stages: to be executed there; empty takes the heavy ones, with ``images`` also those that look at images.
        images: folder of a data set that travels as it is, to a data root of its own.
        chain: None for the project's own.
        max_bytes: refused above, with the sizes of the parts.

    Raises:
        ValueError: for an unknown stage, one before it that is not done, or a bundle that is too large.
    """
    chain = chain or Chain()
    config = read_config(config_path, chain)
    wanted = _wanted(stages, chain, config, images)
    run_folder = runs_root() / config.run
    carried = _carried(wanted, chain, config, run_folder, config_path)
    out = Path(out).resolve()
    if out.exists() and not (out / BUNDLE).is_file() and any(out.iterdir()):
        raise ValueError(f"{out}: holds something that is no bundle; name another folder with --out")
    with atomic_path(out) as folder:
        folder.mkdir()
        for source, name in _code(chain, config_path):
            _copy(source, folder / "project" / name)
        for wheel in wheels:
            _copy(wheel, folder / "wheels" / wheel.name)
        for name in carried:
            for file in _files(name, read_manifest(run_folder / name)["outputs"], wanted, images):
                _copy(run_folder / name / file, folder / "runs" / config.run / name / file)
        if images is not None:
            _zip(images, folder / "data" / f"{images.name}.zip")
        _copy(Path(__file__).with_name("run_there.py"), folder / "run.py")
        text = README.format(stages=", ".join(wanted), run=config.run, name=out.name)
        (folder / "README.txt").write_text(text, encoding="utf-8")
        _check_size(folder, max_bytes)
        write_contents(
            folder, BUNDLE, run=config.run, config=config_path.name, stages=wanted, carried=carried, versions=versions()
        )
    archive = out.with_name(out.name + ".tar")
    pack(out, archive, out.name)
    say(f"bundle: {out} and {archive.name}, {size_text(archive.stat().st_size)}; runs {', '.join(wanted)} there")
    return archive


def _wanted(stages: Sequence[str], chain: Chain, config: RunConfig, images: Path | None) -> list[str]:
    for name in stages:
        _ = chain[name]
    if not stages:
        drawn = config.parameters.get("00_data", {}).get("dataset") == "phantoms"
        see = PICTURED if images is not None else PICTURED[1:] if drawn else ()
        stages = [name for name in chain.names() if name in (*HEAVY, *see)]
    return [name for name in chain.names() if name in set(stages)]


def _carried(wanted: Sequence[str], chain: Chain, config: RunConfig, run_folder: Path, config_path: Path) -> list[str]:
    """The stages that the wanted ones read and that do not run there; each must be done here."""
    read = {need for name in wanted for need in chain[name].needs} - set(wanted)
    reasons = stale_stages(chain, run_folder, config.parameters)
    for name in chain.names():
        if name in read and reasons[name]:
            raise ValueError(
                f"{name} is not done here ({reasons[name][0]}); first run "
                f"`cytolib run --config {config_path} --until {name}`"
            )
    return [name for name in chain.names() if name in read]


def _files(stage: str, outputs: Mapping[str, Any], wanted: Sequence[str], images: Path | None) -> list[str]:
    """Names of a stage's files that travel: its manifest, and what is read of it."""
    prefixes = READ.get(stage, ("",))
    seen = images is None and "03_sample" in wanted or stage != "00_data"
    names = [name for name in outputs if name.startswith(prefixes) and (seen or not name.startswith("images/"))]
    return [NAME, *names]


def _code(chain: Chain, config_path: Path) -> list[tuple[Path, str]]:
    package = root() / "cytolib"
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    found = [(p, p.relative_to(root()).as_posix()) for p in sorted(files)]
    notebooks = [chain.notebook(spec) for spec in chain.stages if spec.kind == "notebook"]
    found += [(p, f"notebooks/{p.name}") for p in notebooks]
    return [*found, (root() / "pyproject.toml", "pyproject.toml"), (config_path, f"configs/{config_path.name}")]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _zip(folder: Path, archive: Path) -> None:
    """Thousands of small files in one: a tar would round each up to blocks. The same bytes for the same files."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            info.external_attr = 0o644 << 16
            file.writestr(info, path.read_bytes())


def _check_size(folder: Path, max_bytes: int) -> None:
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            parts = path.relative_to(folder).parts
            name = "/".join(parts[:3]) if parts[0] == "runs" else parts[0]
            # a tar rounds every file up to blocks of 512 bytes, behind a block that names it
            sizes[name] = sizes.get(name, 0) + 512 + -(-path.stat().st_size // 512) * 512
    total = sum(sizes.values())
    if total > max_bytes:
        parts_text = ", ".join(f"{k} {size_text(v)}" for k, v in sorted(sizes.items(), key=lambda kv: -kv[1]))
        raise ValueError(
            f"the bundle has {size_text(total)}, more than {size_text(max_bytes)} ({parts_text}); take fewer stages "
            "with --stages, smaller images with --images, or fewer packages"
        )
