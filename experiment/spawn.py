"""Becomes a background process: `python -m experiment.spawn OPTIONS -- COMMAND...`.

Runs on the host of the process, before it: opens its log, leaves a pid file, starts a session of
its own (so that a Ctrl-C at the terminal does not reach it), has the kernel kill it when whoever
started it dies, pins it to cores, and then executes the command in this same process.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from experiment.processes import die_with_parent, identify


def main(arguments: list[str]) -> None:
    """Prepare this process and execute the command; returns only by raising."""
    options = _parser().parse_args(arguments)
    if options.parent is not None:
        die_with_parent(signal.SIGKILL, options.parent)
    if os.getpid() != os.getsid(0):
        os.setsid()
    if options.cores:
        os.sched_setaffinity(0, options.cores)
    _redirect(options.log)
    process = identify(os.getpid())
    assert process is not None, "this process runs"
    temporary = options.pid_file.with_suffix(".part")
    temporary.write_text(f"{process.pid} {process.start}\n")
    temporary.replace(options.pid_file)
    try:
        os.execvp(options.command[0], options.command)
    except OSError as error:
        sys.exit(f"cannot execute {options.command[0]}: {error.strerror}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiment.spawn", description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--pid-file", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="pid with which this process shall die")
    parser.add_argument("--cores", type=_cores, help="for example 0,2")
    parser.add_argument("command", nargs="+")
    return parser


def _cores(text: str) -> list[int]:
    return [int(core) for core in text.split(",")]


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(nothing)
    os.close(out)


if __name__ == "__main__":
    main(sys.argv[1:])
