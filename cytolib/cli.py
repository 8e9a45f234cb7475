"""The command line: ``cytolib run | status | doctor | figures | data | publish | bundle``."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cytolib.bundle.commands import add_bundle_commands
from cytolib.text import printable

# What bad input and a broken machine raise; anything else is a bug and says so.
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, ModuleNotFoundError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 not done, 2 wrong input (one sentence on stderr)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without some letter must not end a run
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is cleaned up: another Ctrl-C must not cut the last word off
        print("cytolib: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        if options.debug:
            raise
        text = printable(" ".join(str(error).split())) or type(error).__name__
        if not isinstance(error, EXPECTED) or isinstance(error, (NotImplementedError, RecursionError)):
            text = f"unexpected {type(error).__name__}: {text}; the same command with --debug shows where"
        print(f"cytolib: {text}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(prog="cytolib", description="Blood cells, from images to paper figures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="run the pipeline: whatever is not verified as done")
    run.set_defaults(do=_run)
    run.add_argument("--config", type=Path, default=Path("configs/default.yaml"), metavar="FILE")
    run.add_argument("--cores", type=int, default=None, help="cores for all stages together (default: all)")
    run.add_argument("--until", metavar="STAGE", help="last stage that is wanted")
    run.add_argument("--force", metavar="STAGE", action="append", default=[], help="execute even if unchanged")
    run.add_argument("--cell-timeout", type=int, metavar="SECONDS", help="longest time of one notebook cell")
    run.add_argument("--plain", action="store_true", help="without Snakemake, papermill and kernels, stage after stage")

    status = commands.add_parser("status", parents=[common], help="say of each stage whether it is done, or why not")
    status.set_defaults(do=_status)
    status.add_argument("--config", type=Path, metavar="FILE", help="default: configs/default.yaml")
    status.add_argument("--run", metavar="NAME", help="a run by its name, with the parameters that it was made with")
    status.add_argument("--why", action="store_true", help="every reason for which a stage is stale")
    status.add_argument("--json", action="store_true", help="everything, as JSON")

    doctor = commands.add_parser("doctor", parents=[common], help="check this machine and say how to mend it")
    doctor.set_defaults(do=_doctor)
    doctor.add_argument("--json", action="store_true", help="the findings as JSON")

    figures = commands.add_parser("figures", parents=[common], help="draw every figure anew from stored tables")
    figures.set_defaults(do=_figures)
    figures.add_argument("--run", help="name of a run, your own or a published one (default: all published ones)")
    figures.add_argument("--out", type=Path, metavar="DIR", help="folder (default: papermill_runs/figures)")
    figures.add_argument("--check", action="store_true", help="compare with the published files, byte by byte")

    data = commands.add_parser("data", parents=[common], help="the image sets this project knows")
    _add_data_commands(data, common)

    publish = commands.add_parser("publish", parents=[common], help="copy a finished run to papermill_runs/reference")
    publish.set_defaults(do=_publish)
    publish.add_argument("--run", required=True)

    bundle = commands.add_parser("bundle", parents=[common], help="heavy stages on another machine, with a GPU")
    add_bundle_commands(bundle, common)

    stage = commands.add_parser("stage", parents=[common])  # for Snakemake's jobs: without help, it is not listed
    stage.set_defaults(do=_stage)
    stage.add_argument("name")
    stage.add_argument("--plan", type=Path, required=True)
    stage.add_argument("--threads", type=int, default=None)
    return parser


def _add_data_commands(data: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = data.add_subparsers(required=True, metavar="ACTION")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--root", "--to", dest="root", metavar="DIR", help="data root (default: CYTOLIB_DATA, else data/)"
    )

    show = actions.add_parser("list", parents=[common, where], help="all data sets, and which of them are here")
    show.set_defaults(do=_data_list)
    show.add_argument("--json", action="store_true", help="everything the cards say, as JSON")

    get = actions.add_parser("get", parents=[common, where], help="fetch a data set, or say how to get it by hand")
    get.set_defaults(do=_data_get)
    get.add_argument("name", metavar="NAME")

    check = actions.add_parser(
        "check", parents=[common, where], help="open every image and compare with what is published"
    )
    check.set_defaults(do=_data_check)
    check.add_argument("name", metavar="NAME")
    check.add_argument("--all", action="store_true", help="name every refused file and every duplicate")


def _run(options: argparse.Namespace) -> int:
    from cytolib.run.paths import threads
    from cytolib.run.pipeline import run_pipeline

    return run_pipeline(
        options.config,
        cores=threads() if options.cores is None else options.cores,
        until=options.until,
        force=options.force,
        cell_timeout_s=options.cell_timeout,
        plain=options.plain,
    )


def _stage(options: argparse.Namespace) -> int:
    from cytolib.run.execute import StageError
    from cytolib.run.plan import run_planned_stage

    try:
        run_planned_stage(options.plan, options.name, options.threads)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _status(options: argparse.Namespace) -> int:
    from cytolib.run.status import run_status, status_lines

    status = run_status(options.config, options.run)
    print(status.as_json() if options.json else "\n".join(status_lines(status, why=options.why)))
    return 0 if status.done else 1


def _doctor(options: argparse.Namespace) -> int:
    from cytolib.run.doctor import doctor

    return doctor(as_json=options.json)


def _figures(options: argparse.Namespace) -> int:
    import matplotlib

    matplotlib.use("Agg")  # pictures in files: no window, whatever the machine has
    from cytolib.figures.redraw import redraw

    return redraw(options.run, options.out, options.check)


def _data_list(options: argparse.Namespace) -> int:
    from cytolib.data.listing import list_lines, list_rows

    root = _data_root(options)
    print(json.dumps(list_rows(root), indent=1, ensure_ascii=False) if options.json else "\n".join(list_lines(root)))
    return 0


def _data_get(options: argparse.Namespace) -> int:
    from cytolib.data.download import get_data_set
    from cytolib.data.listing import find_card

    if options.name == "phantoms":
        print("phantoms: nothing to get: notebook 00 draws them")
        return 0
    root = _data_root(options)
    there = get_data_set(find_card(options.name), root, progress=sys.stderr.isatty())
    if there and options.root is not None:
        print(f"this data root is used after: export CYTOLIB_DATA={shlex.quote(str(root))}")
    return 0 if there else 1


def _data_check(options: argparse.Namespace) -> int:
    from cytolib.data.check import check_data_set
    from cytolib.data.listing import find_card

    if options.name == "phantoms":
        print("phantoms: nothing to check: notebook 00 draws them")
        return 0
    lines, fine = check_data_set(find_card(options.name), _data_root(options), show_all=options.all)
    print("\n".join(lines))
    return 0 if fine else 1


def _data_root(options: argparse.Namespace) -> Path:
    from cytolib.run.paths import data_root

    return data_root() if options.root is None else Path(options.root).expanduser().resolve()


def _publish(options: argparse.Namespace) -> int:
    from cytolib.run.config import check_run_folder
    from cytolib.run.reference import publish_run

    check_run_folder(options.run)
    print(f"published: {publish_run(options.run)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
