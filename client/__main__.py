"""`python -m client --job JOB.json`: stream a clip to a server and write down what came back."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import isnan
from pathlib import Path
from random import Random
from typing import Any

import cv2

from client.grpc_transport import GrpcTransport
from client.job import KEYS, Job, read_job
from client.records import Records
from client.session import Session
from client.shaping.process import RelayProcess
from client.source import VideoSource
from jellyfish.errors import JellyfishError, RunError
from jellyfish.files.atomic import write_json

_GO_POLL_S = 0.02
_TELL_S = 2.0

DESCRIPTION = """\
Stream a clip to a Jellyfish server at a fixed frame rate, through a relay that follows a
bandwidth trace where the job names one. With N the client's number, it writes into out_dir:

  client-N.ready.json       once clip and relay are up; it then waits for a file `go`
  client-N.progress.json    every 2 s: frames with an outcome, and how many are not ok
  client-N.*.jsonl          rows and detections as they come: at most a second is lost when it is
                            killed; what an earlier client left there ends in .last
  client-N.frames.parquet   one row a captured frame
  client-N.detections.json  what came back, in COCO results format
  client-N.json             counts, bytes through the relay, times

It ends by itself after the stream, and on SIGTERM, to it or to its process group. A lost connection
is made again; where the job's give_up_s has passed without one, or the stream ends without one, all
files are written and the exit code is 1.
"""


class Client:
    """One client process: source, relay, session, files.

    Args:
        job: what to do.

    Raises:
        ConfigError: the job asks for something that there is not.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._config, self._trace = job, job.session(), job.uplink()
        self._source = VideoSource(job.clip["name"], Path(job.clip["path"]))
        self._relay: RelayProcess | None = None
        self._session: Session | None = None
        self._records: Records | None = None
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Do the job.

        Raises:
            JellyfishError: something failed; what was seen until then is written.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            transport = await self._prepare()
            await self._wait_for_start()
            rng = Random(self._job.seed)
            size = (self._source.width, self._source.height)
            records = Records(self._job, size, self._trace, self._started_s)
            records.start()
            session = Session(self._config, transport, self._source, rng, records.on_row)
            self._session, self._records = session, records
            if not self._stopped.is_set():
                await self._stream(session, records)
        finally:
            self._source.close()
            if self._relay is not None:
                await self._relay.stop()
            if self._session is not None and self._records is not None:
                self._records.close(self._summary(self._session, self._records))
        if session.gone and not self._stopped.is_set():
            raise RunError(session.gone)

    async def _stream(self, session: Session, records: Records) -> None:
        telling = asyncio.create_task(self._tell(session, records))
        try:
            await session.run()
        finally:
            telling.cancel()

    async def _tell(self, session: Session, records: Records) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            records.tell(session.so_far())

    def _started_s(self) -> float | None:
        """Return when the trace began, once the relay has told."""
        return None if self._relay is None else self._relay.report.get("started_s")

    def _stop(self) -> None:
        self._stopped.set()
        if self._session is not None:
            self._session.stop()

    async def _prepare(self) -> GrpcTransport:
        job = self._job
        self._source.start()
        targets = job.servers
        if job.relayed:
            self._relay = self._make_relay()
            await self._relay.start()
            targets = [f"127.0.0.1:{self._relay.port}"]
        write_json(job.path("ready.json"), {"client": job.client, "targets": targets})
        return GrpcTransport(targets, job.security(), job.servers)

    def _make_relay(self) -> RelayProcess:
        """Return a relay that shapes, or one that lets tc know the connection that it shapes."""
        job = self._job
        (server,) = job.servers
        if self._trace is None or job.source_ports is None:
            return RelayProcess(server, self._trace_file(), job.delay_ms)
        first, last = job.source_ports
        started = job.path("started.json")
        return RelayProcess(server, None, job.delay_ms, (first, last), started)

    def _trace_file(self) -> Path | None:
        if self._trace is None:
            return None
        path = self._job.path("trace.json")
        write_json(path, {"mbps": self._trace.mbps, "step_s": self._trace.step_s})
        return path

    async def _wait_for_start(self) -> None:
        go = self._job.out_dir / "go"
        while self._job.wait_for_go and not (self._stopped.is_set() or go.exists()):
            await asyncio.sleep(_GO_POLL_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._job.start_after_s):
                await self._stopped.wait()

    def _summary(self, session: Session, records: Records) -> dict[str, Any]:
        job = self._job
        return {
            "client": job.client,
            "name": job.name,
            "seed": job.seed,
            "frames": records.frames,
            "sent": records.sent,
            "counts": session.counts(),
            "register_ms": None if isnan(session.register_ms) else session.register_ms,
            "relay": None if self._relay is None else self._relay.report or None,
            "reconnects": session.reconnects,
            "gone": session.gone,
            "stopped": self._stopped.is_set(),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one client; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m client",
        description=DESCRIPTION,
        epilog="Keys of the job:\n" + KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--job", type=Path, required=True, metavar="JOB.json", help="see below")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)  # clients share their cores
    try:
        job = read_job(options.job)
        try:
            asyncio.run(Client(job).run())
        except OSError as error:  # a full disk, no free port
            raise RunError(str(error)) from error
    except JellyfishError as error:
        print(f"client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
