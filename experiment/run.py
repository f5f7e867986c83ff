"""One run: a server and its clients as processes, from their start to the run's directory.

Everything happens in a directory beside the final one, which takes its name at the very end: a
killed run leaves nothing that looks finished. Whatever fails, all processes are ended.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from experiment import processes, provenance
from experiment.collect import collect_tables, tidy
from experiment.cores import Cores, kept_to, share
from experiment.grid import Config, Run, is_emulated, latencies, pick, run_settings
from experiment.hosts import Connection, LocalConnection, Process
from experiment.jobs import SERVER_JOB, client_jobs, server_job
from experiment.paths import ROOT, profile_folder, run_folder
from experiment.processes import ProcessId
from jellyfish.errors import DataError, JellyfishError, RunError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.provenance import write_provenance

MARGIN_S = 20.0  # beyond the stream: start-up of the session, last answers, writing files
READY_TIMEOUT_S = 60.0
SERVER_GRACE_S = 8.0
POLL_S = 0.1
MIN_FREE_MB = 32
FULL_MB = 0.5  # what fails with less to spare has most likely failed for that


class Testbed:
    """The processes of one run in `folder`, on one host; a context manager that ends them all.

    Args:
        connection: the host.
        config, run: what to do.
        folder: where processes write.
        results, root: where inputs lie, and the checkout.
    """

    __test__ = False  # no test class, whatever pytest takes its name for

    def __init__(
        self,
        connection: Connection,
        config: Config,
        run: Run,
        folder: Path,
        results: Path,
        root: Path,
    ) -> None:
        self._connection = connection
        self._config, self._run = config, run
        self._folder, self._results, self._root = folder, results, root
        self._cores = _cores(config, run)
        self._stack = ExitStack()
        self._server: Process | None = None
        self._clients: list[Process] = []

    def __enter__(self) -> Testbed:
        self._stack.enter_context(kept_to(self._cores.rest))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_server(self) -> int:
        """Start the server; return its port once it is ready.

        Raises:
            RunError: it ended, or was not ready in time; the text shows the end of its log.
        """
        job = server_job(
            self._config, self._run, self._folder, self._cores, self._results, self._root
        )
        write_json(self._folder / SERVER_JOB, job)
        self._server = self._start("server", "server", self._folder / SERVER_JOB)
        ready = self._folder / "server.ready.json"
        timeout_s = float(self._config["server"]["start_timeout_s"])
        self._wait(ready.exists, timeout_s, "the server was not ready", [self._server])
        return int(read_json(ready)["port"])

    def start_clients(self, port: int) -> float:
        """Start the clients and let them go; return how long they take at most, in s.

        Raises:
            RunError: one ended, or was not ready in time.
        """
        jobs = client_jobs(self._config, self._run, self._folder, port, self._results, self._root)
        for job in jobs:
            path = self._folder / f"{job['name']}.job.json"
            write_json(path, job)
            self._clients.append(self._start(str(job["name"]), "client", path))
        ready = [self._folder / f"{job['name']}.ready.json" for job in jobs]
        self._wait(
            lambda: all(path.exists() for path in ready),
            READY_TIMEOUT_S,
            "the clients were not ready",
            [*self._clients, *([self._server] if self._server else [])],
        )
        (self._folder / "go").touch()
        return float(max(_longest_s(job) for job in jobs))

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
                raise RunError(_ended(client, "before its stream was over"))
        if self._server.end(SERVER_GRACE_S) != 0:
            raise RunError(_ended(self._server, "when told to end"))

    def _start(self, name: str, package: str, job: Path) -> Process:
        process = Process(
            self._connection,
            [sys.executable, "-m", package, "--job", str(job.resolve())],
            name=name,
            folder=self._folder.resolve(),
            root=self._root,
            cores=self._cores.rest,
        )
        return self._stack.enter_context(process)

    def _wait(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        what: str,
        watched: list[Process],
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            for process in watched:
                if not process.running:
                    raise RunError(_ended(process, "before it was ready"))
            if time.monotonic() > deadline:
                raise RunError(f"{what} within {timeout_s:g} s{_tail(watched[0])}")
            time.sleep(0.02)


def _cores(config: Config, run: Run) -> Cores:
    """Return who runs where; emulated devices sleep and need no core of their own."""
    threads = int(pick(config, "devices", run.cell.device).get("threads", 1))
    if not is_emulated(config, run.cell.device):
        return share(run.cell.workers, threads)
    everything = tuple(sorted(os.sched_getaffinity(0)))
    return Cores(workers=(everything,) * run.cell.workers, rest=everything)


def _longest_s(job: dict[str, Any]) -> float:
    last_answers_s = max(2 * job["slo_ms"] / 1000.0, 1.0)
    return float(job["start_after_s"] + job["stream_s"] + last_answers_s)


def _ended(process: Process, when: str) -> str:
    return f"{process.name} ended {when} (exit code {process.exit_code}){_tail(process)}"


def _tail(process: Process) -> str:
    lines = process.log_tail().splitlines()
    return "".join(["; the end of its log:", *(f"\n    {line}" for line in lines)])


def execute(config: Config, run: Run, results: Path, root: Path = ROOT) -> Path:
    """Do `run` and return its directory, written whole. Only for who holds the testbed's lock.

    Raises:
        RunError: server or client failed; everything has been ended, and what they wrote stays
            beside the run's directory, for a look, until the next attempt.
        DataError: an input is missing, or the disk is full.
    """
    started = provenance.now()
    final = run_folder(run.key, results)
    folder = final.with_name(f".{run.key}.part")
    _make_room(folder)
    try:
        with Testbed(LocalConnection(), config, run, folder, results, root) as testbed:
            longest_s = testbed.start_clients(testbed.start_server())
            testbed.finish(longest_s + MARGIN_S)
        collect_tables(config, run, folder)
        tidy(folder)
        write_provenance(folder, _provenance(config, run, started, results, root))
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


def _provenance(config: Config, run: Run, started: str, results: Path, root: Path) -> Any:
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
    )
