"""`python -m tests.soak.load JOB.json`: honest clients in one process, real sessions over gRPC.

It writes client-N.frames.jsonl as clients do, and client-N.json at the end. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from client.grpc_transport import GrpcTransport
from client.session import Session, SessionConfig
from client.transport import Received
from jellyfish.detections import Detections
from jellyfish.errors import JellyfishError
from jellyfish.files.atomic import write_json
from jellyfish.files.journal import Journal
from jellyfish.files.streams import FRAMES_LINES, as_record
from jellyfish.messages import Answer, Frame
from jellyfish.records import FrameRow
from tests.soak.material import JpegSource

REMEMBERED = 4096  # ids; far more than can be under way
PATIENCE_S = 10.0


class Watched(GrpcTransport):
    """A transport that counts answers that nobody asked for, or that have come before.

    After a connection broke, an answer may be told once more: the server cannot know better.
    """

    twice = unasked = 0
    _sent = -1

    async def connect(self) -> None:
        self._answered: set[int] = set()
        await super().connect()

    def send(self, frame: Frame) -> None:
        self._sent = frame.id
        super().send(frame)

    async def receive(self) -> Received:
        received = await super().receive()
        if isinstance(received.event, Answer):
            number = received.event.id
            self.twice += number in self._answered
            self.unasked += number > self._sent
            self._answered.add(number)
            if len(self._answered) > REMEMBERED:
                self._answered = {n for n in self._answered if n > number - REMEMBERED // 2}
        return received


async def stream(
    job: dict[str, Any],
    number: int,
    source: JpegSource,
    journal: Journal,
    sessions: list[Session],
) -> None:
    """Run one client and write down what became of it."""
    asked = job["clients"][number]
    out = Path(job["out"])
    lines = journal.lines(out / FRAMES_LINES.format(number))

    def on_row(row: FrameRow, found: Detections | None) -> None:
        lines.append(as_record(row))

    transport = Watched([f"127.0.0.1:{asked['port']}"])
    config = SessionConfig(
        client=number,
        name=f"client-{number}",
        fps=asked["fps"],
        slo_ms=asked["slo_ms"],
        stream_s=job["stream_s"],
    )
    session = Session(config, transport, source, on_row=on_row)
    sessions.append(session)
    failed = ""
    try:
        await session.run()
    except JellyfishError as error:
        failed = str(error)
    summary = {
        "reconnects": session.reconnects,
        "gone": session.gone,
        "failed": failed,
        "twice": transport.twice,
        "unasked": transport.unasked,
        "counts": session.counts(),
    }
    write_json(out / f"client-{number}.json", summary)


async def run(job: dict[str, Any]) -> None:
    """Run all clients."""
    source, journal = JpegSource(), Journal()
    sessions: list[Session] = []

    def stop() -> None:
        for session in sessions:
            session.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    count = len(job["clients"])
    streams = [stream(job, n, source, journal, sessions) for n in range(count)]
    tasks = [asyncio.create_task(one) for one in streams]
    await asyncio.sleep(0)  # each has asked for its file
    threading.Thread(target=journal.run, name="records", daemon=True).start()
    await asyncio.gather(*tasks)
    journal.close(PATIENCE_S, {})


if __name__ == "__main__":
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
