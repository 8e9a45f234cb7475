"""The running of the project: paths, atomic artefacts, stages with manifests, verified notebook execution."""

from cytolib.run.artefacts import atomic_path, sha256
from cytolib.run.paths import cache_root, data_root, device, root, runs_root, threads
from cytolib.run.stage import Stage

__all__ = ["Stage", "atomic_path", "cache_root", "data_root", "device", "root", "runs_root", "sha256", "threads"]
