"""A model folder that carries its own code, so that diffusers opens it where cytolib is not installed.

``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`` runs the modules written here: a file for the
denoiser, one for the standardiser, and one that joins all that sampling needs. Our own class never runs them: it opens
such a folder with the code that is installed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers

from cytolib.diffusion.denoiser import EmbeddingDenoiser
from cytolib.diffusion.schedulers import Scheduler
from cytolib.diffusion.standardizer import EmbeddingStandardizer
from cytolib.run import atomic_path

if TYPE_CHECKING:
    from cytolib.diffusion.pipeline import EmbeddingDiffusionPipeline

INDEX = "model_index.json"
PIPELINE, DENOISER, STANDARDIZER = "embedding_pipeline", "embedding_denoiser", "embedding_standardizer"
_PACKAGE = "cytolib.diffusion."
#: What sampling is made of, each before those that use it.
_JOINED = ("labels", "noise", "matmul", "preconditioning", "schedulers", "sampling", "pipeline")
_NEEDS_CYTOLIB = ("from_pretrained", "save_pretrained")  # methods that the folder's class has from diffusers instead


def write_code(folder: Path) -> None:
    """Add the code to a folder that diffusers' ``save_pretrained`` filled, and name it in ``model_index.json``."""
    files = {
        folder / f"{PIPELINE}.py": joined_source(_JOINED),
        folder / "denoiser" / f"{DENOISER}.py": joined_source(("denoiser",)),
        folder / "standardizer" / f"{STANDARDIZER}.py": joined_source(("standardizer",)),
    }
    for path, source in files.items():
        _write(path, source)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["_class_name"] = [PIPELINE, index["_class_name"]]
    index["denoiser"][0], index["standardizer"][0] = DENOISER, STANDARDIZER
    _write(folder / INDEX, json.dumps(index, indent=2) + "\n")  # last: without it the folder opens as one without code


def carries_code(folder: Path) -> bool:
    """Whether a model folder names code of its own."""
    return isinstance(json.loads((folder / INDEX).read_text(encoding="utf-8"))["_class_name"], list)


def open_with_installed_code(cls: type[EmbeddingDiffusionPipeline], folder: Path) -> EmbeddingDiffusionPipeline:
    """The pipeline of a folder that carries code, without running any of it."""
    index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    library, name = index["scheduler"]
    scheduler = getattr(diffusers, name, None) if library == "diffusers" else None
    if scheduler is None or not issubclass(scheduler, Scheduler):
        raise ValueError(f"{folder / INDEX}: scheduler {name!r} of {library!r}, expected one that fits embeddings")
    return cls(
        EmbeddingDenoiser.from_pretrained(folder / "denoiser").eval(),
        EmbeddingStandardizer.from_pretrained(folder / "standardizer"),
        scheduler.from_pretrained(folder / "scheduler"),
        id2label=index["id2label"],
        id2domain=index["id2domain"],
    )


def joined_source(names: tuple[str, ...]) -> str:
    """Modules of this package as one that imports nothing of it."""
    heads: dict[str, None] = {}
    bodies = []
    for name in names:
        source = inspect.getsource(importlib.import_module(_PACKAGE + name))
        lines, tree = source.splitlines(), ast.parse(source)
        dropped = set[int]()
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                dropped |= _lines(node)
                if not (isinstance(node, ast.ImportFrom) and str(node.module).startswith("cytolib")):
                    heads[ast.unparse(node)] = None
            elif _only_for_types(node):
                dropped |= _lines(node)
            elif isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name in _NEEDS_CYTOLIB:
                        dropped |= _lines(method)
        bodies.append("\n".join(line for i, line in enumerate(lines, 1) if i not in dropped))
    future = "from __future__ import annotations"
    imports = [future, *(line for line in heads if line != future)]
    title = f'"""{", ".join(names)} of cytolib.diffusion, joined when this model was saved (Apache-2.0)."""'
    return "\n\n".join([title, "\n".join(imports), *bodies]) + "\n"


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _lines(node: ast.stmt) -> set[int]:
    """Line numbers of a statement, with its decorators."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return set(range(first, (node.end_lineno or node.lineno) + 1))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
