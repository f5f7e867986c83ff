"""The processes of one run: a server and its clients, from start to end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from experiment.cores import Cores, kept_to, share
from experiment.credentials import credentials
from experiment.grid import Config, Run, is_emulated, pick
from experiment.jobs import SERVER_JOB, client_jobs, server_job, uplinks
from experiment.places import Place, Placement
from experiment.shaping import HostProcess
from jellyfish.errors import RunError

READY_TIMEOUT_S = 60.0
SERVER_GRACE_S = 8.0
POLL_S = 0.1
TELL_S = 3.0

Tell = Callable[[str], None]


class Testbed:
    """The processes of one run; a context manager that ends them all and fetches what they wrote.

    Args:
        at: where they live.
        config, run: what to do.
        folder: where all that they write is in the end.
        results, root: where inputs lie, and the checkout.
    """

    __test__ = False  # no test class, whatever pytest takes its name for

    def __init__(
        self,
        at: Placement,
        config: Config,
        run: Run,
        folder: Path,
        results: Path,
        root: Path,
    ) -> None:
        self._at, self._config, self._run = at, config, run
        self._folder, self._results, self._root = folder, results, root
        self._credentials = credentials(config, at)
        self._cores = _cores(config, run, at.server.cores)
        self._stack = ExitStack()
        self._server: HostProcess | None = None
        self._clients: list[HostProcess] = []
        self._watches: list[HostProcess] = []

    def __enter__(self) -> Testbed:
        for place in self._at.every:
            place.begin()
        if self._at.local:
            self._stack.enter_context(kept_to(self._cores.rest))
        return self

    def __exit__(self, *failure: object) -> None:
        """End everything and fetch what it wrote, on each host that still answers."""
        with self._stack:
            errors = [error for do in self._ends() if (error := _tried(do)) is not None]
        if errors and failure[0] is None:
            raise errors[0]
        for text in {str(error) for error in errors} - {str(failure[1])}:
            print(f"while ending: {text}", file=sys.stderr)

    def _ends(self) -> list[Callable[[], object]]:
        """Return what ends all processes, clients before the server, and then fetches files."""
        return [
            *(shaper.stop for shaper in self._at.shapers),
            *(place.end for place in self._at.every),
            *(partial(place.fetch, self._folder) for place in self._at.every),
        ]

    def start_server(self) -> int:
        """Start the server; return its port once it is ready.

        Raises:
            RunError: it ended, or was not ready in time; the text shows the end of its log.
        """
        job = server_job(self._config, self._run, self._at, self._cores, self._results, self._root)
        if self._credentials is not None:
            job |= self._credentials.of_server(self._at.server)
        self._server = self._start(self._at.server, "server", "server", job, SERVER_JOB)
        timeout_s = float(self._config["server"]["start_timeout_s"])
        ready = self._wait(
            {"server.ready.json": self._at.server},
            timeout_s,
            "the server was not ready",
            [self._server],
        )
        return int(ready["server.ready.json"]["port"])

    def start_clients(self, port: int) -> float:
        """Start the clients and let them go; return how long they take at most, in s.

        Raises:
            RunError: one ended, or was not ready in time.
        """
        jobs = client_jobs(self._config, self._run, self._at, port, self._results, self._root)
        ready = {}
        for i, job in enumerate(jobs):
            name, place = str(job["name"]), self._at.of_client(i)
            if self._credentials is not None:
                job |= self._credentials.of_client(place, name)
            self._clients.append(self._start(place, name, "client", job, f"{name}.job.json"))
            ready[f"{name}.ready.json"] = place
        self._wait(
            ready,
            READY_TIMEOUT_S,
            "the clients were not ready",
            [*self._clients, *([self._server] if self._server else [])],
        )
        self._shape()
        self._watch()
        for place in set(ready.values()):
            place.write("go", {})
        return float(max(_longest_s(job) for job in jobs))

    def _shape(self) -> None:
        traces = uplinks(self._config, self._run, self._root)
        for shaper in self._at.shapers:
            shaper.start(self._at.shaped_by(shaper, traces))

    def _watch(self) -> None:
        """Have each host say, at the end, whose its CPU time was from now on."""
        for place in self._at.every:
            watching = [place.python, "-m", "experiment.cpu_watch", str(place.folder)]
            self._watches.append(place.start("cpu", watching))

    def finish(self, timeout_s: float, tell: Tell | None = None) -> None:
        """Wait until every client has ended by itself, then end the server.

        Args:
            timeout_s: how long to wait.
            tell: is told now and then how it goes.

        Raises:
            RunError: a client failed or did not end in time, or the server ended before.
        """
        assert self._server is not None, "started before"
        deadline = time.monotonic() + timeout_s
        told_s = time.monotonic()
        while [client for client in self._clients if client.running]:
            if tell is not None and time.monotonic() - told_s > TELL_S:
                tell(self._so_far())
                told_s = time.monotonic()
            if not self._server.running:
                raise self._ended(self._server, "while clients were streaming")
            if time.monotonic() > deadline:
                slow = next(client for client in self._clients if client.running)
                raise RunError(f"{slow.name} did not end within {timeout_s:.0f} s{_tail(slow)}")
            time.sleep(POLL_S)
        for watch in self._watches:
            watch.end()  # should it have failed, its log tells, and the run counts all the same
        for client in self._clients:
            if client.exit_code != 0:
                raise self._ended(client, "before its stream was over")
        if self._server.end(SERVER_GRACE_S) != 0:
            raise self._ended(self._server, "when told to end")

    def _ended(self, process: HostProcess, when: str) -> RunError:
        """Return what to raise for a process that ended too early.

        Raises:
            RunError: a host is lost or its disk is full, which is the better reason.
        """
        for place in self._at.every:
            place.check()
        what = f"{process.name} ended {when} (exit code {process.exit_code})"
        return RunError(f"{what}{_tail(process)}")

    def _so_far(self) -> str:
        """Return the miss rate as the clients count it."""
        counts = [
            self._at.of_client(i).read(f"client-{i}.progress.json")
            for i in range(len(self._clients))
        ]
        settled = sum(count["settled"] for count in counts if count)
        missed = sum(count["missed"] for count in counts if count)
        return f"{missed / settled:.1%} of {settled} frames missed" if settled else "starting"

    def _start(
        self, place: Place, name: str, package: str, job: dict[str, Any], file: str
    ) -> HostProcess:
        path = place.write(file, job)
        cores = self._cores.rest if place is self._at.server else None
        return place.start(name, [place.python, "-m", package, "--job", str(path)], cores)

    def _wait(
        self,
        files: dict[str, Place],
        timeout_s: float,
        what: str,
        watched: list[HostProcess],
    ) -> dict[str, Any]:
        """Return the content of each file, by name, once all are there."""
        deadline = time.monotonic() + timeout_s
        found: dict[str, Any] = {}
        while True:
            for name in files.keys() - found.keys():
                if (value := files[name].read(name)) is not None:
                    found[name] = value
            if len(found) == len(files):
                return found
            for process in watched:
                if not process.running:
                    raise self._ended(process, "before it was ready")
            if time.monotonic() > deadline:
                raise RunError(f"{what} within {timeout_s:g} s{_tail(watched[0])}")
            time.sleep(0.02)


def _tried(do: Callable[[], object]) -> RunError | None:
    """Do something; return the error that it raises, since more has to be done after it."""
    try:
        do()
    except RunError as error:
        return error
    return None


def _cores(config: Config, run: Run, available: tuple[int, ...]) -> Cores:
    """Return who runs where; emulated devices sleep and need no core of their own."""
    threads = int(pick(config, "devices", run.cell.device).get("threads", 1))
    if not is_emulated(config, run.cell.device):
        return share(run.cell.workers, threads, available)
    return Cores(workers=(available,) * run.cell.workers, rest=available)


def _longest_s(job: dict[str, Any]) -> float:
    last_answers_s = max(2 * job["slo_ms"] / 1000.0, 1.0)
    return float(job["start_after_s"] + job["stream_s"] + last_answers_s)


def _tail(process: HostProcess) -> str:
    lines = process.log_tail().splitlines()
    return "".join(["; the end of its log:", *(f"\n    {line}" for line in lines)])
