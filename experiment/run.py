"""One run: a server and its clients as processes, from their start to the run's directory.

Everything is brought to a directory beside the final one, which takes its name at the very end: a
killed run leaves nothing that looks finished. Whatever fails, all processes are ended.
"""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment import processes, provenance
from experiment.collect import collect_tables, tidy
from experiment.cores import Cores, kept_to, share
from experiment.grid import Config, Run, is_emulated, latencies, pick, run_settings
from experiment.jobs import SERVER_JOB, client_jobs, server_job
from experiment.paths import ROOT, profile_folder, run_folder
from experiment.places import Place, Placement, here
from experiment.processes import ProcessId
from experiment.shaping import HostProcess, ShapedClient
from jellyfish.errors import DataError, JellyfishError, RunError
from jellyfish.files.atomic import write_json
from jellyfish.files.provenance import write_provenance
from jellyfish.trace import Trace, from_rates

if TYPE_CHECKING:
    from experiment.fleet import Fleet

MARGIN_S = 20.0  # beyond the stream: start-up of the session, last answers, writing files
READY_TIMEOUT_S = 60.0
SERVER_GRACE_S = 8.0
POLL_S = 0.1
MIN_FREE_MB = 32
FULL_MB = 0.5  # what fails with less to spare has most likely failed for that


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
        self._cores = _cores(config, run, at.server.cores)
        self._stack = ExitStack()
        self._server: HostProcess | None = None
        self._clients: list[HostProcess] = []

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
            self._clients.append(self._start(place, name, "client", job, f"{name}.job.json"))
            ready[f"{name}.ready.json"] = place
        self._wait(
            ready,
            READY_TIMEOUT_S,
            "the clients were not ready",
            [*self._clients, *([self._server] if self._server else [])],
        )
        self._shape(jobs)
        for place in set(ready.values()):
            place.write("go", {})
        return float(max(_longest_s(job) for job in jobs))

    def _shape(self, jobs: list[dict[str, Any]]) -> None:
        for k, shaper in enumerate(self._at.shapers):
            shaped = [
                ShapedClient(client=i, source_ports=ports, trace=_uplink(job["trace"]))
                for i, job in enumerate(jobs)
                if i % len(self._at.shapers) == k and (ports := shaper.source_ports(i)) is not None
            ]
            shaper.start(shaped)

    def finish(self, timeout_s: float) -> None:
        """Wait until every client has ended by itself, then end the server.

        Raises:
            RunError: a client failed or did not end in time, or the server ended before.
        """
        assert self._server is not None, "started before"
        deadline = time.monotonic() + timeout_s
        while [client for client in self._clients if client.running]:
            if not self._server.running:
                raise RunError(_ended(self._server, "while clients were streaming"))
            if time.monotonic() > deadline:
                slow = next(client for client in self._clients if client.running)
                raise RunError(f"{slow.name} did not end within {timeout_s:.0f} s{_tail(slow)}")
            time.sleep(POLL_S)
        for client in self._clients:
            if client.exit_code != 0:
                for place in self._at.every:
                    place.check()  # a host that is gone is the better reason
                raise RunError(_ended(client, "before its stream was over"))
        if self._server.end(SERVER_GRACE_S) != 0:
            raise RunError(_ended(self._server, "when told to end"))

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
                    raise RunError(_ended(process, "before it was ready"))
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


def _uplink(trace: dict[str, Any] | None) -> Trace | None:
    return None if trace is None else from_rates("uplink", trace["mbps"], trace["step_s"])


def _longest_s(job: dict[str, Any]) -> float:
    last_answers_s = max(2 * job["slo_ms"] / 1000.0, 1.0)
    return float(job["start_after_s"] + job["stream_s"] + last_answers_s)


def _ended(process: HostProcess, when: str) -> str:
    return f"{process.name} ended {when} (exit code {process.exit_code}){_tail(process)}"


def _tail(process: HostProcess) -> str:
    lines = process.log_tail().splitlines()
    return "".join(["; the end of its log:", *(f"\n    {line}" for line in lines)])


def execute(
    config: Config, run: Run, results: Path, root: Path = ROOT, hosts: Fleet | None = None
) -> Path:
    """Do `run` and return its directory, written whole.

    Only for who holds the testbed's lock: this machine's, or that of the hosts given.

    Raises:
        RunError: server or client failed; everything has been ended, and what they wrote stays
            beside the run's directory, for a look, until the next attempt.
        DataError: an input is missing, or the disk is full.
    """
    started = provenance.now()
    final = run_folder(run.key, results)
    folder = final.with_name(f".{run.key}.part")
    _make_room(folder)
    at = here(folder, root) if hosts is None else hosts.placement(run.key)
    try:
        with Testbed(at, config, run, folder, results, root) as testbed:
            longest_s = testbed.start_clients(testbed.start_server())
            testbed.finish(longest_s + MARGIN_S)
        collect_tables(config, run, folder)
        tidy(folder)
        if hosts is not None:
            write_json(folder / "hosts.json", hosts.description())
        write_provenance(folder, _provenance(config, run, started, results, root, hosts))
    except (RunError, OSError) as error:
        raise _explained(error, run, folder) from error
    if final.exists():
        shutil.rmtree(final)
    folder.replace(final)
    return final


def _explained(error: Exception, run: Run, folder: Path) -> JellyfishError:
    """Return the error with its run; a full disk is told as such, since logs cannot tell it."""
    if _free_mb(folder) < FULL_MB or getattr(error, "errno", None) == errno.ENOSPC:
        return DataError(f"{run.key}: the disk of {folder.parent} is full: {error}")
    return RunError(f"{run.key}: {error}\n  (all it wrote: {folder})")


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6


def _make_room(folder: Path) -> None:
    """Make `folder` anew, once nothing that a killed run left there is alive or in the way."""
    if folder.exists():
        for path in folder.glob("*.pid"):
            pid, start = map(int, path.read_text().split())
            processes.end([ProcessId(pid, start)], grace_s=0.0)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if (free_mb := _free_mb(folder)) < MIN_FREE_MB:
        folder.rmdir()
        raise DataError(
            f"the disk of {folder.parent} is full: {free_mb:.0f} MB free; "
            f"a run needs up to {MIN_FREE_MB} MB"
        )


def _provenance(
    config: Config, run: Run, started: str, results: Path, root: Path, hosts: Fleet | None
) -> Any:
    profile = profile_folder(config, run.cell.device, results) / "profile.json"
    return provenance.collect(
        key=run.key,
        settings=run_settings(config, run.cell, run.clip, run.repetition),
        world=run.cell.world,
        seed=run.seed,
        device=latencies(config, run.cell.device),
        started=started,
        digests={"profile": provenance.file_digest(profile)},
        root=root,
        machine=None if hosts is None else hosts.machine(),
    )
