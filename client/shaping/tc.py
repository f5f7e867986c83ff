"""Shape the uplinks of this host's clients by tc: `python -m client.shaping.tc --job JOB.json`.

Each client's connection leaves from source ports of its own and follows a trace of its own, which
begins when the client's relay says that the connection begins (a file). This process may be any
user's: only its child `client.shaping.tc_root` is root's, by `sudo -n`. That one puts back the
interface as it was when this process ends, whatever ends it; should it be killed itself, the next
one does, or `--clean`.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

from client.linux import die_with_parent, sleep_precisely
from client.shaping.tc_helper import Helper
from client.shaping.tc_host import show
from client.shaping.tc_job import KEYS, Job, Shaped
from client.shaping.tc_report import passed
from jellyfish.errors import JellyfishError, RunError
from jellyfish.files.atomic import write_json

_POLL_S = 0.005  # how soon a client's start is noticed
_IDLE_S = 0.25
_SLOW_S = 0.005  # a frame that waits longer for the old rate's sake is helped along
_DISCARD = 9


class Shaper:
    """Shapes until it is told to end; sets up and takes down.

    Args:
        job: what to do.
        lease_s: end when standard input says nothing for so long, or ends; None to never look.
    """

    def __init__(self, job: Job, lease_s: float | None) -> None:
        self._job, self._lease_s = job, lease_s
        self._wake, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._end_s = time.monotonic() + job.max_s
        self._heard_s = time.monotonic()
        self._kicks = socket.socket(
            socket.AF_INET6 if ":" in job.address else socket.AF_INET, socket.SOCK_DGRAM
        )

    def run(self) -> None:
        """Do it all.

        Raises:
            JellyfishError: something failed, or the manager is gone; all is taken down.
        """
        job = self._job
        helper = Helper(job.interface.name)
        try:
            with helper as root:
                try:
                    for request in job.commands.set_up([one.uplink for one in job.shaped]):
                        root.ask(request)
                    write_json(job.out_dir / "tc.ready.json", {"interface": job.interface.name})
                    self._follow(root)
                finally:
                    write_json(job.out_dir / "tc.json", self._report())
        except RunError:
            _put_back(job)  # somebody may have killed the one that does
            raise

    def _follow(self, root: Helper) -> None:
        while not self._told_to_end(self._patience_s()):
            root.check()
            for one in self._job.shaped:
                one.notice_start()
                self._step(one, root)

    def _patience_s(self) -> float:
        waiting = any(one.started_s is None for one in self._job.shaped)
        due_s = min((one.due_s for one in self._job.shaped), default=inf) - time.monotonic()
        return max(0.0, min(due_s, _POLL_S if waiting else _IDLE_S))

    def _told_to_end(self, wait_s: float) -> bool:
        """Wait, or be told by a signal to end.

        Raises:
            RunError: the time is over, or the manager has gone.
        """
        watched = [self._wake] if self._lease_s is None else [self._wake, 0]
        ready, _, _ = select.select(watched, [], [], wait_s)
        now = time.monotonic()
        if 0 in ready and os.read(0, 4096):
            self._heard_s = now
        elif 0 in ready or (self._lease_s and now - self._heard_s > self._lease_s):
            raise RunError(f"{socket.gethostname()}: the run that shapes here is gone")
        if now > self._end_s:
            raise RunError(f"{socket.gethostname()}: still shaping after {self._job.max_s:g} s")
        return self._wake in ready

    def _step(self, one: Shaped, root: Helper) -> None:
        now, due_s = time.monotonic(), one.due_s
        if due_s > now or one.started_s is None:
            return
        rate = one.schedule.take(now - one.started_s)
        if rate is None:
            return
        commands, before = self._job.commands, one.mbps
        root.send(commands.change(one.uplink, rate))
        one.mbps, one.changes = rate, one.changes + 1
        one.late_s = max(one.late_s, time.monotonic() - due_s)
        if rate > before and commands.frame_s(before) > _SLOW_S:
            self._kick()

    def _kick(self) -> None:
        """Have the interface look at its queues: tc does not, and a frame may wait at the old rate.

        Any packet does it; this one is empty and goes to the server's discard port.
        """
        time.sleep(0.002)  # tc is another process
        with suppress(OSError):
            self._kicks.sendto(b"", (self._job.address, _DISCARD))

    def _report(self) -> dict[str, Any]:
        name = self._job.interface.name
        counts = passed(show("class", name, "-s"), show("qdisc", name, "-s"))
        return {
            "interface": name,
            "clients": [
                {
                    "client": one.client,
                    "started_s": one.started_s,
                    "changes": one.changes,
                    "late_ms": round(one.late_s * 1000, 3),
                    **counts.get(one.uplink.classid, {}),
                }
                for one in self._job.shaped
            ],
        }


def _keep_time() -> None:
    sleep_precisely()
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _noticed(signum: int, frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor tells."""


def _shape(job: Job, lease_s: float | None) -> None:
    shaper = Shaper(job, lease_s)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _noticed)
    die_with_parent(signal.SIGTERM)
    job.check()
    _keep_time()
    shaper.run()


def _clean(job: Job) -> None:
    if _put_back(job):
        print(f"{socket.gethostname()}: {job.interface.name} is as it was before a dead run")


def _put_back(job: Job) -> bool:
    """Put back what a dead run left; return whether there was anything."""
    left = job.interface.root().ours
    if left:
        with Helper(job.interface.name):
            pass
    return left


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m client.shaping.tc",
        description=__doc__,
        epilog=f"Keys of a job:\n{KEYS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--job", type=Path, required=True, help="JSON file")
    parser.add_argument("--lease-s", type=float, help="end when stdin is silent for so long")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only check whether it can be done")
    what.add_argument("--clean", action="store_true", help="only remove what a dead run left")
    what.add_argument("--dry-run", action="store_true", help="only print the commands")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Shape until SIGTERM; return the exit code."""
    options = _arguments(arguments)
    try:
        job = Job(options.job)
        if options.dry_run:
            print("\n".join(job.plan()))
        elif options.check:
            job.check()
        elif options.clean:
            _clean(job)
        else:
            _shape(job, options.lease_s)
    except JellyfishError as error:
        print(f"tc: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
