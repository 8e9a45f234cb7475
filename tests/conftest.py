"""Fixtures shared by all tests: the real images, tools outside Python, and a summary that hides no skipped test."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before any Hugging Face import reads them: tests never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_SET = "PBC_dataset_normal_DIB"


def find_real_data() -> Path | None:
    """The folder that holds the real images: $CYTOLIB_DATA, else shared/data beside the repository, else None."""
    places = [os.environ.get("CYTOLIB_DATA"), REPOSITORY.parent / "shared" / "data"]
    return next((Path(place) for place in places if place and (Path(place) / REAL_SET).is_dir()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real data sets; skips the test, with the reason in the summary, where there is none."""
    found = find_real_data()
    if found is None:
        pytest.skip(f"REAL DATA MISSING: no folder {REAL_SET} under CYTOLIB_DATA={os.environ.get('CYTOLIB_DATA')!r}")
    return found


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """need_tool(name) gives the program's path; a missing one skips the test on a desk and fails it under CI."""

    def need(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            message = f"the program {name!r} is not on PATH: install it (.ci/run shows how)"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return need


def _small_set(name: str) -> Any:
    """A fixture: the data root with a small copy of one published set, ``tests.small_sets`` has what it holds."""

    @pytest.fixture(name=name)
    def made(tmp_path: Path) -> Path:
        from tests import small_sets  # imports pandas, which most tests do not need

        return getattr(small_sets, name)(tmp_path)  # type: ignore[no-any-return]

    return made


bangkok, jiangxi, seoul, tehran, fields = map(_small_set, ("bangkok", "jiangxi", "seoul", "tehran", "fields"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the real images is a real-data test, marked or not."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every test that was skipped, so that a green run without data cannot be taken for a full one."""
    skipped = terminalreporter.stats.get("skipped", [])
    real = sorted({report.nodeid for report in skipped if "real_data" in report.keywords})
    others = sorted({(report.nodeid, _reason(report)) for report in skipped if "real_data" not in report.keywords})
    if others:
        terminalreporter.section(f"{len(others)} other tests did not run")
    for name, reason in others:
        terminalreporter.write_line(f"  not run: {name}: {reason}")
    if real:
        terminalreporter.section(f"{len(real)} REAL-DATA TESTS DID NOT RUN", sep="!", red=True, bold=True)
        for name in real:
            terminalreporter.write_line(f"  not run: {name}")
        terminalreporter.write_line(
            f"Set CYTOLIB_DATA to a folder that holds {REAL_SET} (see data/README.md) to run them."
        )


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")
