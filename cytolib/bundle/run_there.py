"""Run this on the machine with the GPU: python3 run.py

It needs nothing but Python until it has looked at everything else; it can be stopped and started again at any time.
"""

# ruff: noqa: UP031, UP036 (an old Python must come as far as the sentence that says so)

import hashlib
import json
import os
import shutil
import site
import sys
import zipfile
from typing import NoReturn

HERE = os.path.dirname(os.path.abspath(__file__))
ROOM = 1000000000  # bytes that the runs may need


def stop(text: str) -> NoReturn:
    sys.stderr.write("run.py: %s\n" % text)
    sys.exit(2)


def check_files() -> None:
    """Every file is there and is the one that was packed."""
    try:
        with open(os.path.join(HERE, "bundle.json")) as file:
            files = json.load(file)["files"]
    except (OSError, ValueError, KeyError):
        stop("bundle.json is missing or damaged; copy the whole folder (or its tar) again")
    for name in sorted(files):
        path = os.path.join(HERE, *name.split("/"))
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                for part in iter(lambda: file.read(1 << 20), b""):
                    digest.update(part)
        except OSError:
            stop("%s is missing; copy the whole folder (or its tar) again" % name)
        if digest.hexdigest() != files[name]["sha256"]:
            stop("%s is damaged or was edited; copy the whole folder (or its tar) again" % name)


def unpack_wheels() -> str:
    """The packages that this machine may lack, unpacked beside the others and installed nowhere."""
    folder, new = os.path.join(HERE, "site"), os.path.join(HERE, ".site.new")
    if os.path.isdir(folder):
        return folder
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    wheels = os.path.join(HERE, "wheels")
    for name in sorted(os.listdir(wheels)) if os.path.isdir(wheels) else []:
        with zipfile.ZipFile(os.path.join(wheels, name)) as wheel:
            wheel.extractall(new)  # names that leave the folder are cut by zipfile, and its hash was checked
    os.rename(new, folder)
    return folder


def unpack_images() -> None:
    """Images travel in one file; they are unpacked to a folder of its name."""
    data = os.path.join(HERE, "data")
    for name in sorted(os.listdir(data)) if os.path.isdir(data) else []:
        folder, new = os.path.join(data, name[: -len(".zip")]), os.path.join(data, ".new")
        if not name.endswith(".zip") or os.path.isdir(folder):
            continue
        sys.stdout.write("unpacking %s ...\n" % name)
        sys.stdout.flush()
        shutil.rmtree(new, ignore_errors=True)
        with zipfile.ZipFile(os.path.join(data, name)) as images:
            images.extractall(new)
        os.rename(new, folder)


def main() -> None:
    if sys.version_info < (3, 11):
        stop("Python 3.11 or newer is needed, this is %s; try python3.12 run.py" % sys.version.split()[0])
    sys.stdout.write("checking the files of the bundle ...\n")
    sys.stdout.flush()
    if shutil.disk_usage(HERE).free < ROOM:
        stop("%s has less than %d MB of room; make room or move the folder" % (HERE, ROOM // 1000000))
    if not os.access(HERE, os.W_OK):
        stop("%s cannot be written to; copy the folder to a place that can" % HERE)
    check_files()
    unpack_images()
    paths = [os.path.join(HERE, "project"), unpack_wheels()]
    if site.ENABLE_USER_SITE:  # stages run without it, but torch may well be installed there
        paths.append(site.getusersitepackages())
    # absolute: a stage works in another folder
    paths += [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(paths),
        CYTOLIB_RUNS=os.path.join(HERE, "runs"),
        CYTOLIB_CACHE=os.path.join(HERE, "cache"),
        CYTOLIB_DATA=os.path.join(HERE, "data"),
        HF_HUB_OFFLINE="1",
        PYTHONUNBUFFERED="1",
    )
    for name in ("CYTOLIB_STAGE_DIR", "CYTOLIB_STAGE_TOKEN", "CYTOLIB_RUN"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "cytolib", "bundle", "run", HERE] + sys.argv[1:]
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
