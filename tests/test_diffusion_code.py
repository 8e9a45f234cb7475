"""Both layouts of a saved model give the same cells in a fresh process: with cytolib, and without it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cytolib.diffusion import EmbeddingDiffusionPipeline
from cytolib.diffusion.code import joined_source
from cytolib.diffusion.schedulers import make_scheduler
from tests.test_samplers import random_pipe

OURS = """
from cytolib.diffusion import EmbeddingDiffusionPipeline
import diffusers.utils.dynamic_modules_utils as dynamic
def refuse(*a, **k): raise AssertionError("our own class ran code of the folder")
dynamic.get_class_in_module = refuse
pipe = EmbeddingDiffusionPipeline.from_pretrained(folder)
"""
THEIRS = """
sys.modules["cytolib"] = None  # as if it were not installed
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
"""
DRAW = """
out = pipe(["blast", "basophil"] * 300, "b", 5, guidance_scale=1.3, seeds=range(600))
np.save(sys.argv[2], out.embeddings)
assert list(out.domain_labels[:1]) == ["b"] and pipe.class_names == ["basophil", "blast", "monocyte"]
"""


def drawn_in_a_fresh_process(opening: str, folder: Path, out: Path) -> np.ndarray:
    code = "import sys, numpy as np, torch; folder = sys.argv[1]; torch.set_num_threads(1)" + opening + DRAW
    environment = os.environ | {"HF_MODULES_CACHE": str(out.parent / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(out)], capture_output=True, text=True,
                          env=environment, cwd=out.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out)


@pytest.mark.parametrize(("objective", "sampler"), [("edm", "dpm_solver"), ("flow_matching", "flow_euler")])
def test_both_layouts_open_both_ways(tmp_path: Path, objective: str, sampler: str) -> None:
    pipe = random_pipe(objective)
    pipe.scheduler = make_scheduler(sampler)
    expected = pipe(["blast", "basophil"] * 300, "b", 5, guidance_scale=1.3, seeds=range(600)).embeddings
    plain, coded = tmp_path / "plain", tmp_path / "coded"
    pipe.save_pretrained(plain)
    pipe.save_pretrained(coded, with_code=True)
    assert not list(plain.rglob("*.py")) and len(list(coded.rglob("*.py"))) == 3
    for name, opening, folder in [("a", OURS, plain), ("b", OURS, coded), ("c", THEIRS, coded)]:
        found = drawn_in_a_fresh_process(opening, folder, tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_a_folder_with_code_saves_again_without(tmp_path: Path) -> None:
    pipe = random_pipe()
    pipe.save_pretrained(tmp_path / "a", with_code=True)
    again = EmbeddingDiffusionPipeline.from_pretrained(tmp_path / "a")
    assert not again.denoiser.training and again.denoiser.config["objective"] == "edm"
    again.save_pretrained(tmp_path / "b")
    third = EmbeddingDiffusionPipeline.from_pretrained(tmp_path / "b")
    for a, b in zip(pipe.denoiser.parameters(), third.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_trust_is_asked_for(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    random_pipe().save_pretrained(tmp_path / "m", with_code=True)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(tmp_path / "m")


def test_the_code_stands_alone() -> None:
    names = ("labels", "noise", "matmul", "preconditioning", "schedulers", "sampling", "pipeline")
    for part in (names, ("denoiser",), ("standardizer",)):
        source = joined_source(part)
        imported = {str(n.module) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
        assert not [name for name in imported if name.startswith("cytolib")]
        compile(source, "joined", "exec")


def test_foreign_scheduler_and_missing_folder_are_refused(tmp_path: Path) -> None:
    random_pipe().save_pretrained(tmp_path / "m", with_code=True)
    index = tmp_path / "m" / "model_index.json"
    found = json.loads(index.read_text())
    found["scheduler"] = ["subprocess", "Popen"]
    index.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="scheduler 'Popen' of 'subprocess', expected one that fits embeddings"):
        EmbeddingDiffusionPipeline.from_pretrained(tmp_path / "m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no model_index.json"):
        EmbeddingDiffusionPipeline.from_pretrained(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="neither a folder nor to be had from the hub"):
        EmbeddingDiffusionPipeline.from_pretrained("nobody/nothing", local_files_only=True)
