"""One environment, several faces: pyproject, lock, constraints, environment.yml and what is installed agree."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
FIGURES_LOCK = (ROOT / "requirements-figures.lock").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
#: What only trains the shipped encoder anew: not in the lock, and nothing in the package or its tests needs it.
APART = {"pretrain"}
EXTRAS = {name: needed for name, needed in PROJECT["optional-dependencies"].items() if name not in APART}
FIGURES = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["figures"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + sum(EXTRAS.values(), [])]

PYTHONS = [f"3.{minor}" for minor in range(20) if f"3.{minor}.5" in SpecifierSet(PROJECT["requires-python"])]
PLATFORMS = {"linux": ("Linux", "x86_64"), "darwin": ("Darwin", "arm64"), "win32": ("Windows", "AMD64")}


def lock_entries(text: str) -> list[tuple[str, list[str]]]:
    """(requirement, hashes) of each entry of a hashed lock: continuation lines joined, comments dropped."""
    joined = re.sub(r"\\\n", " ", text)
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(re.split(r"\s+--hash=", line)[0].strip(), re.findall(r"--hash=(\S+)", line)) for line in lines]


def machine(python: str, platform: str) -> dict[str, str]:
    """The marker environment of another machine."""
    system, hardware = PLATFORMS[platform]
    return {
        **{key: str(value) for key, value in default_environment().items()},
        **{"python_version": python, "python_full_version": f"{python}.5", "implementation_version": f"{python}.5"},
        **{"sys_platform": platform, "platform_system": system, "platform_machine": hardware},
        "os_name": "nt" if platform == "win32" else "posix",
    }


def pins(environment: dict[str, str] | None = None) -> dict[str, list[str]]:
    """{package: versions} that the lock installs in a marker environment; one version each, if the lock is sound."""
    found: dict[str, list[str]] = {}
    for text, _ in lock_entries(LOCK):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{text}: the lock pins with == only"
            found.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return found


def fresh_python(code: str) -> str:
    """What `code` prints in a new interpreter started in the repository root."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_requirement_is_locked_within_its_range(python: str, platform: str) -> None:
    environment = machine(python, platform)
    locked = pins(environment)
    several = {name: versions for name, versions in locked.items() if len(versions) != 1}
    assert not several, f"more than one pin applies on Python {python}, {platform}: {several}"
    for requirement in DIRECT:
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{requirement} is not in requirements.lock: run `make lock`"
        assert requirement.specifier.contains(locked[name][0], prereleases=True), (
            f"requirements.lock has {name} {locked[name][0]}, pyproject.toml asks {requirement}: run `make lock`"
        )


def test_constraints_are_the_lock_without_hashes() -> None:
    assert CONSTRAINTS.splitlines() == [requirement for requirement, _ in lock_entries(LOCK)], "run `make lock`"


@pytest.mark.parametrize(("text", "least"), [(LOCK, 100), (FIGURES_LOCK, 10)], ids=["all", "figures"])
def test_every_lock_entry_has_sha256_hashes(text: str, least: int) -> None:
    entries = lock_entries(text)
    assert len(entries) > least
    bare = [name for name, hashes in entries if not hashes]
    strange = [name for name, hashes in entries if not all(re.fullmatch("sha256:[0-9a-f]{64}", h) for h in hashes)]
    assert not bare and not strange, f"without hash: {bare}; with another hash than sha256: {strange}"


def test_the_environment_of_the_figures_is_a_small_part_of_the_whole() -> None:
    """Same pins, same hashes; what pyproject names for it is there, and nothing that learns."""
    small, whole = dict(lock_entries(FIGURES_LOCK)), dict(lock_entries(LOCK))
    assert {entry: whole.get(entry) for entry in small} == small, "run `make lock`"
    names = {canonicalize_name(Requirement(entry).name) for entry in small}
    assert {canonicalize_name(Requirement(line).name) for line in FIGURES} <= names
    assert not names & {"torch", "torchvision", "diffusers", "timm", "scikit-learn", "jupyterlab"} and len(names) < 20
    assert set(FIGURES) <= set(PROJECT["dependencies"]), "one range a package: as in [project] dependencies"


TEXTS = {"requirements.lock": LOCK, "constraints.txt": CONSTRAINTS, "requirements-figures.lock": FIGURES_LOCK}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_pins_name_no_address_and_no_host(text: str) -> None:
    address = r"://|\s@\s|^-[-\w]+|(?<![\w.=])[\w-]+(?:\.[\w-]+)*\.(?:org|com|io|net|dev|local)\b|:\d{2,5}/"
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--hash=")]
    assert [line for line in lines if re.search(address, line)] == []


def test_conda_environment_repeats_no_range_but_python() -> None:
    assert CONDA["name"] == PROJECT["name"]
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
    plain = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (python,) = [entry for entry in plain if entry.startswith("python")]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    assert sorted(entry for entry in plain if entry != python) == ["git", "make", "pip"]


def test_conda_environment_installs_the_package_under_the_constraints() -> None:
    (section,) = [entry for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert list(section) == ["pip"]
    constraint, package = section["pip"]
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)
    assert extras, f"environment.yml: found {package!r}, expected -e .[extras]"
    assert sorted(extras[1].split(",")) == sorted(EXTRAS)


def test_extras_apart_are_in_no_lock() -> None:
    apart = {
        canonicalize_name(Requirement(line).name) for name in APART for line in PROJECT["optional-dependencies"][name]
    }
    assert apart and not apart & {canonicalize_name(Requirement(entry).name) for entry, _ in lock_entries(LOCK)}


def test_makefile_accepts_the_pythons_of_the_project() -> None:
    named = re.findall(r"\((\d), (\d+)\)", (ROOT / "Makefile").read_text())
    assert [".".join(pair) for pair in named] == [PYTHONS[0], PYTHONS[-1]]


def test_installed_versions_are_the_locked_ones() -> None:
    wrong = []
    for name, (version, *_) in pins().items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "nothing"
        if installed != version and (installed == "nothing" or Version(installed) != Version(version)):
            wrong.append(f"{name}: installed {installed}, locked {version}")
    assert not wrong, "remove .venv and run make again: " + "; ".join(wrong)


def test_torch_and_torchvision_are_a_pair() -> None:
    """torchvision's metadata names the torch it was built for; its compiled operators are the proof."""
    locked = pins()
    asked = [Requirement(line) for line in importlib.metadata.requires("torchvision") or []]
    (torch_range,) = [requirement.specifier for requirement in asked if requirement.name == "torch"]
    assert torch_range.contains(locked["torch"][0]), f"torchvision {locked['torchvision'][0]} asks torch{torch_range}"
    kept = fresh_python(
        "import torch, torchvision\n"
        "boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30]])\n"
        "print(torch.ops.torchvision.nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5).tolist())"
    )
    assert json.loads(kept) == [1, 2]


def test_import_is_quick_and_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import cytolib; took = time.perf_counter() - start\n"
        "print(took, 'torch' in sys.modules)"
    )
    runs = [fresh_python(code).split() for _ in range(3)]
    assert {torch for _, torch in runs} == {"False"}
    assert min(float(seconds) for seconds, _ in runs) < 0.5


@pytest.mark.parametrize("package", ["cytolib.figures", "cytolib.run", "cytolib.data"])
def test_rooms_that_need_no_torch_import_none(package: str) -> None:
    """cytolib.figures with every module in it; of the other two the front door, which every notebook opens first."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"room = importlib.import_module({package!r})\n"
        "assert room.__file__, 'no __init__.py'\n"
        f"if {package!r} == 'cytolib.figures':\n"
        "    for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print(sorted({'torch', 'diffusers', 'timm'} & set(sys.modules)))"
    )
    assert fresh_python(code).strip() == "[]"
