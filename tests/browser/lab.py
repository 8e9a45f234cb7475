"""JupyterLab in a real browser: `lab_session()` starts both, `run_all()` runs a notebook as a student would.

Nothing of the user's own Jupyter takes part: configuration, settings, workspaces and run-time files lie in the
session's folder, the server listens on 127.0.0.1 under a random token, and the notebooks are copies.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
]
WIDTH, HEIGHT = 1360, 1500  # of the window in CSS pixels: one screenshot is one window
MAX_SCREENSHOTS = 20  # a notebook higher than that prints a wall of text somewhere
# Every cell stays in the page wherever it is scrolled to, and no pop-up asks for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False, "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
}
# The prompt of each code cell on the page: [3]: for the third run, [*]: while it waits, [ ]: if it never ran.
PROMPTS = """() => [...document.querySelectorAll(
    '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt'
)].map(prompt => prompt.textContent.trim())"""
# The document behind the page (LabApp.expose_app_in_browser): what is shown may be trimmed, this is not.
DOCUMENT = "() => window.jupyterapp.shell.currentWidget.context.model.toJSON()"
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
SCROLLER = f"{NOTEBOOK} .jp-WindowedPanel-outer"


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab and the browser page that shows it."""

    page: Page
    address: str
    folder: Path  # screenshots go here, the notebooks' copies into notebooks/ under it


@dataclass(frozen=True)
class NotebookRun:
    """What became of one notebook: no errors means that every code cell ran to its end."""

    errors: list[str]
    screenshots: list[Path]
    seconds: float


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def write_settings(folder: Path) -> None:
    """JupyterLab's user settings, one file for each plug-in."""
    for plugin, values in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_server(address: str, token: str, server: subprocess.Popen[bytes], log: Path, timeout: float = 90) -> None:
    """Return when the server answers; RuntimeError with the end of its log if it ends or stays silent."""
    request = urllib.request.Request(f"{address}/api/status", headers={"Authorization": f"token {token}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + timeout
    while server.poll() is None and time.monotonic() < end:
        try:
            with direct.open(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start within {timeout} s; its log ends:\n{log.read_text()[-2000:]}")


@contextmanager
def lab_server(folder: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab over folder/notebooks; gives (address, token), and ends the server and its kernels afterwards."""
    private = folder / "jupyter"
    write_settings(private / "settings")
    port, token = free_port(), secrets.token_hex(24)
    environment = os.environ | {
        "CYTOLIB_RUN": "browser",
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        "IPYTHONDIR": str(private / "ipython"),
    }
    environment.pop("MPLBACKEND", None)  # figures must reach the page
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--ServerApp.allow_root=True", "--ServerApp.open_browser=False"),
        *(f"--notebook-dir={folder / 'notebooks'}", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
        "--LabApp.expose_app_in_browser=True",
    ]
    log = private / "server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(address, token, server, log)
        yield address, token
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def lab_session(notebooks: Iterable[Path], folder: Path) -> Iterator[Lab]:
    """JupyterLab and a browser over copies of `notebooks`.

    Args:
        notebooks: sources; they are copied to folder/notebooks and never written to.
        folder: for the copies, screenshots and Jupyter's own files; emptied first.

    Raises:
        FileNotFoundError: no Chromium is installed, or a notebook is missing.
        RuntimeError: the server does not start.
    """
    browser = find_browser()
    if browser is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is on PATH: install Chromium (.ci/run shows how)")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    for notebook in notebooks:
        shutil.copyfile(notebook, folder / "notebooks" / notebook.name)
    with lab_server(folder) as (address, token), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=BROWSER_FLAGS)
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{address}/lab?token={token}")  # leaves a cookie, so that the token stands in no later address
        page.locator("#jp-main-dock-panel").wait_for(timeout=90_000)
        yield Lab(page, address, folder)
        chromium.close()


def open_notebook(lab: Lab, name: str, timeout: float) -> None:
    """Show the notebook alone on the page and wait until its kernel is idle."""
    lab.page.goto(f"{lab.address}/lab/tree/{name}?reset")
    lab.page.locator(f"{NOTEBOOK} .jp-CodeCell").first.wait_for(timeout=timeout * 1000)
    # The status bar, not the notebook's own indicator: that one says idle before there is a kernel, and Run All
    # Cells would then come to nothing.
    lab.page.locator("#jp-main-statusbar", has_text="(ipykernel) | Idle").wait_for(timeout=timeout * 1000)
    if lab.page.locator("#jp-left-stack").is_visible():
        lab.page.keyboard.press("Control+b")  # the file list takes room from the notebook


def click_run_all(page: Page) -> None:
    """Run > Run All Cells."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()


def restart_and_run_all(page: Page) -> None:
    """Run > Restart Kernel and Run All Cells..., and yes in the dialog."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator('.lm-Menu-item[data-command="runmenu:restart-and-run-all"]').click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-Dialog").wait_for(state="detached")
    # the new kernel clears every prompt before it sets its own: the old ones must not be taken for an end
    page.wait_for_function(f"() => !({PROMPTS})().some(prompt => /[0-9]/.test(prompt))", timeout=90_000)


def press_stop(page: Page) -> None:
    """The stop button of the notebook's toolbar, which interrupts the kernel (as the keys I I do)."""
    page.locator(f'{NOTEBOOK} [data-jp-item-name="interrupt"] jp-button').click()


def wait_for_text(page: Page, number: int, pattern: str, timeout: float) -> None:
    """Return when the outputs of code cell ``number`` (counted from 1) show what the regular expression names."""
    page.wait_for_function(
        """([selector, index, pattern]) => {
            const cell = document.querySelectorAll(selector)[index]
            return new RegExp(pattern).test(cell.querySelector('.jp-Cell-outputArea')?.innerText ?? '')
        }""",
        arg=[f"{NOTEBOOK} .jp-CodeCell", number - 1, pattern],
        timeout=timeout * 1000,
    )


def wait_for_end(page: Page, timeout: float) -> str | None:
    """Return when no cell waits any more; a sentence if the kernel died or the time ran out before."""
    end = time.monotonic() + timeout
    quiet = 0
    while quiet < 3:  # a moment without [*] can lie between two cells
        if page.locator(".jp-Dialog").count():
            return "JupyterLab asks: " + " ".join(page.locator(".jp-Dialog-content").first.inner_text().split())
        if time.monotonic() > end:
            return f"did not finish within {timeout:g} s"
        prompts: list[str] = page.evaluate(PROMPTS)
        begun, waiting = set(prompts) != {"[ ]:"}, "[*]:" in prompts
        quiet = quiet + 1 if begun and not waiting else 0
        page.wait_for_timeout(300)
    return None


def problems(page: Page) -> list[str]:
    """One sentence for each code cell (counted from 1) that holds an error or has not run."""
    cells = [cell for cell in page.evaluate(DOCUMENT)["cells"] if cell["cell_type"] == "code"]
    found = []
    for number, cell in enumerate(cells, start=1):
        raised = [output for output in cell["outputs"] if output["output_type"] == "error"]
        found += [f"code cell {number}: {output['ename']}: {output['evalue']}" for output in raised]
        if cell["execution_count"] is None:
            found.append(f"code cell {number} did not run to its end")
    return found


def take_screenshots(lab: Lab, stem: str, overlap: int = 60) -> list[Path]:
    """The notebook, one window after the other, as STEM-01.png, STEM-02.png, ..., at most MAX_SCREENSHOTS."""
    scroller = lab.page.locator(SCROLLER)
    total, visible = scroller.evaluate("node => [node.scrollHeight, node.clientHeight]")
    paths = []
    tops = range(0, max(1, total - overlap), visible - overlap)[:MAX_SCREENSHOTS]
    for number, top in enumerate(tops, start=1):
        scroller.evaluate("(node, top) => { node.scrollTop = top }", top)
        lab.page.wait_for_timeout(150)
        paths.append(lab.folder / f"{stem}-{number:02d}.png")
        lab.page.screenshot(path=paths[-1])
    return paths


def end_kernels(lab: Lab) -> None:
    """Shut down every kernel, so that notebooks run one after the other share no memory."""
    cookies = {cookie["name"]: cookie["value"] for cookie in lab.page.context.cookies()}
    headers = {"X-XSRFToken": cookies.get("_xsrf", ""), "Referer": lab.address}
    for session in lab.page.request.get(f"{lab.address}/api/sessions").json():
        lab.page.request.delete(f"{lab.address}/api/sessions/{session['id']}", headers=headers)


def run_all(lab: Lab, name: str, timeout: float = 300) -> NotebookRun:
    """Open a notebook, choose Run All Cells, wait for the end, and take pictures of all of it.

    Args:
        lab: from `lab_session`.
        name: the notebook's file name.
        timeout: seconds for the whole run.
    """
    open_notebook(lab, name, timeout=90)
    start = time.monotonic()
    click_run_all(lab.page)
    stopped = wait_for_end(lab.page, timeout)
    seconds = time.monotonic() - start
    errors = ([stopped] if stopped else []) + problems(lab.page)
    screenshots = take_screenshots(lab, Path(name).stem)
    end_kernels(lab)
    return NotebookRun(errors, screenshots, seconds)
