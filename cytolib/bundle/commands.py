"""``cytolib bundle make | run | take``: the arguments of the commands and what they call."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_bundle_commands(bundle: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the three commands to the parser of ``cytolib bundle``."""
    actions = bundle.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", parents=[common], help="write the folder, and its tar, that is carried there")
    make.set_defaults(do=_make)
    make.add_argument("--config", type=Path, default=Path("configs/gpu.yaml"), metavar="FILE")
    make.add_argument("--out", type=Path, default=Path("gpu_bundle"), metavar="DIR", help="default: gpu_bundle")
    make.add_argument("--stages", nargs="+", default=[], metavar="STAGE", help="stages that run there")
    make.add_argument("--images", type=int, metavar="PIXELS", help="also the images, at most so large")
    make.add_argument("--with", nargs="+", default=[], dest="extra", metavar="PACKAGE", help="more packages it lacks")
    make.add_argument("--python", default="", metavar="VERSION", help="of the Python there, for compiled packages")
    make.add_argument("--no-wheels", action="store_true", help="the machine there has every package")

    run = actions.add_parser("run", parents=[common])  # started by run.py there: without help, it is not listed
    run.set_defaults(do=_run)
    run.add_argument("folder", type=Path)
    run.add_argument("--stages", nargs="+", default=[])
    run.add_argument("--check", action="store_true")

    take = actions.add_parser("take", parents=[common], help="check the results from there and put them into the run")
    take.set_defaults(do=_take)
    take.add_argument("results", type=Path, metavar="results.tar")
    take.add_argument("--config", type=Path, default=None, metavar="FILE", help="default: the one it was made with")


def _make(options: argparse.Namespace) -> int:
    from cytolib.bundle.make import make_bundle
    from cytolib.bundle.wheels import fetch_wheels
    from cytolib.run.paths import cache_root, root

    wheels: list[Path] = []
    if not options.no_wheels:
        lock, cache = root() / "requirements.lock", cache_root() / "wheels"
        wheels = fetch_wheels(lock, cache, extra=options.extra, python=options.python)
    config, images = options.config, None
    if options.images is not None:
        from cytolib.bundle.small import prepare_small_images

        config, images = prepare_small_images(config, options.images, options.out)
    make_bundle(config, options.out, wheels, stages=options.stages, images=images)
    return 0


def _run(options: argparse.Namespace) -> int:
    from cytolib.bundle.there import run_bundle

    return run_bundle(options.folder, stages=options.stages, check_only=options.check)


def _take(options: argparse.Namespace) -> int:
    from cytolib.bundle.take import take_results

    taken = take_results(options.results, config_path=options.config)
    if not taken:
        print(f"{options.results}: no stage was finished there; see what its run.py said")
        return 1
    print("what is missing is run by `cytolib run` with the same configuration")
    return 0
