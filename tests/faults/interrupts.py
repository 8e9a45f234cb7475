"""Ctrl-C and SIGTERM of `cytolib run`, and Ctrl-C in a notebook that a user runs."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

from cytolib.run import root
from cytolib.run.kernels import THREAD_VARIABLES, this_kernel_spec
from cytolib.run.sources import read_notebook
from tests.faults.training import EVERY, STAGE, STEPS, checkpoint_step, long_training
from tests.faults.trial import Trial, Undisturbed, check, outputs_of, wait_for

SENTENCE = "cytolib: interrupted; what is finished is kept, the same command goes on from there"


def play_interrupt(
    base: Undisturbed, folder: Path, stage: str, share: float, sent: signal.Signals, times: int = 1
) -> tuple[str, str]:
    """A signal to the whole process group, as a terminal sends it, once or by an impatient user."""
    trial = Trial(base, folder, without=(stage,), cores=2)
    until = () if stage == "10_figures" else ("--until", stage)
    running = trial.start("run", *until)
    check(running.wait_for_stage(stage), f"{stage} never began: {running.text[-300:]}")
    time.sleep(share * base.seconds[stage])
    for _ in range(times):
        os.killpg(running.process.pid, sent)
        time.sleep(0.05)
    said = running.wait(60)
    trial.check_nobody_left()
    over = trial.check_truthful(stage)  # a machine that has become faster since the undisturbed run
    said.sentence(said.code if over else 130, SENTENCE if said.code else "")
    trial.mend(*until)
    return SENTENCE if said.code else said.last, "was over: verified" if over else "rerun equal"


class _Kernel:
    """A kernel as JupyterLab starts one for a notebook in ``notebooks/``, and a user who runs cells in it."""

    def __init__(self, environment: dict[str, str]) -> None:
        from jupyter_client.manager import KernelManager

        class ThisPython(KernelManager):
            @property
            def kernel_spec(self) -> Any:
                return this_kernel_spec()

        self.manager = ThisPython()
        self.manager.start_kernel(cwd=str(root() / "notebooks"), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run_all(self, cells: list[str]) -> str | None:
        """Run cells in order until one fails; the name of its error, None where all went well."""
        for cell in cells:
            reply = self.client.execute_interactive(cell, timeout=300, output_hook=lambda message: None)
            if reply["content"]["status"] != "ok":
                return str(reply["content"].get("ename", "aborted"))
        return None

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def play_jupyter(base: Undisturbed, folder: Path) -> tuple[str, str]:
    """Interrupted in its training, notebook 02 publishes nothing; run again, in this kernel or a new one, it does."""
    long = long_training(base)
    trial = Trial(base, folder, without=("all",))
    run_folder = trial.runs / "interactive"
    for stage in ("00_data", "01_embed"):
        shutil.copytree(base.runs / "tiny" / stage, run_folder / stage)
    environment = {**trial.environment, **dict.fromkeys(THREAD_VARIABLES, "1")}
    cells = [cell["source"] for cell in read_notebook(root() / "notebooks" / f"{STAGE}.ipynb")["cells"]
             if cell["cell_type"] == "code" and cell["source"].strip()]  # fmt: skip
    cells[0] = cells[0].replace("steps: int = 600", f"steps: int = {STEPS}")  # as a user types it
    manifest = run_folder / STAGE / "manifest.json"
    wanted = {name: digest for name, digest in long.outputs.items() if name.startswith(STAGE)}
    kernel = _Kernel(environment)
    try:
        threading.Thread(target=_interrupt_in_training, args=(kernel, run_folder / STAGE), daemon=True).start()
        error = kernel.run_all(cells)
        check(error == "KeyboardInterrupt", f"the interrupted run ended with {error}")
        check(not manifest.exists(), "a manifest stands there after the interruption")
        kept = checkpoint_step(run_folder / STAGE)
        check(EVERY <= kept < STEPS, f"interrupted after step {kept}, expected a step from {EVERY} to {STEPS - 1}")
        check(kernel.run_all(cells) is None and manifest.is_file(), "the second run did not publish")
        check(outputs_of(run_folder, STAGE) == wanted, "other bytes after a rerun in the same kernel")
    finally:
        kernel.stop()
    shutil.rmtree(run_folder / STAGE / "checkpoints")
    kernel = _Kernel(environment)
    try:
        check(kernel.run_all(cells) is None and manifest.is_file(), "the run in a new kernel did not publish")
        check(outputs_of(run_folder, STAGE) == wanted, "other bytes after a rerun in a new kernel")
    finally:
        kernel.stop()
    trial.check_nobody_left()
    return f"KeyboardInterrupt after step {kept} of {STEPS}", "same kernel and a new one: equal"


def _interrupt_in_training(kernel: _Kernel, folder: Path) -> None:
    if wait_for(lambda: checkpoint_step(folder) >= EVERY, 300, 0.1):
        kernel.manager.interrupt_kernel()
