"""`python -m server --job JOB.json`: serve a zoo of DNNs to clients until told to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jellyfish.errors import JellyfishError, RunError
from server.config import KEYS, read_job
from server.logs import log_to_stderr

log = logging.getLogger(__name__)

LAST_LINES_S = 0.5

DESCRIPTION = """\
Serve a zoo of DNNs over gRPC, one worker process a device. Into out_dir go

  server.ready.json  {port, pid}, once the DNNs are loaded and warm and health says SERVING
  server.*.jsonl     plans, and what became of clients, as they come: at most a second is lost
                     when it is killed; what an earlier server left there ends in .last
  plans.parquet      one row a scheduler run, at the end
  server.json        what became of each client's frames, at the end

SIGTERM and SIGINT, to it or to its process group, end it within 5 s: no more clients, answers to
what waits, files, exit code 0. A log that nobody reads and a disk that is full or stalls cost log
lines and records, not frames.
It speaks jellyfish.v1.Jellyfish, grpc.health.v1.Health and, where asked to, reflection.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description=DESCRIPTION,
        epilog="Keys of the job:\n" + KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--job", type=Path, required=True, metavar="JOB.json", help="see below")
    options = parser.parse_args(arguments)
    stderr = log_to_stderr("%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters, we say ourselves
    try:
        _serve(options.job)
    except JellyfishError as error:
        stderr.say(f"server: {error}")
        return 1
    except Exception:
        log.exception("the server failed")
        return 1
    finally:
        stderr.flush_for(LAST_LINES_S)
    return 0


def _serve(path: Path) -> None:
    from server.process import ServerProcess  # grpc reads its environment when it is imported

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await ServerProcess(job).run(stop)

    job = read_job(path)
    try:
        # Not uvloop: its clock moves in whole milliseconds, and every stage is timed by it.
        asyncio.run(run())
    except OSError as error:  # a full disk, a folder that cannot be written to
        raise RunError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
