"""A relay as a child process of a client."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from jellyfish.errors import RunError

_START_S = 20.0  # on a machine where much else starts
_STOP_S = 3.0


class RelayProcess:
    """Starts `python -m client.shaping.relay`, hears what it says and ends it.

    Args:
        target: HOST:PORT of the server.
        trace: JSON file of the trace, or None for no limit.
        delay_ms: added each way.
        source_ports: first and last of the ports that connections leave from; None for any.
        started: file that shall tell when the trace begins; None for none.

    Attributes:
        port: where it listens on 127.0.0.1.
        report: what it has told so far of `started_s`, `bytes_up`, `bytes_down`.
    """

    def __init__(
        self,
        target: str,
        trace: Path | None,
        delay_ms: float,
        source_ports: tuple[int, int] | None = None,
        started: Path | None = None,
    ) -> None:
        self._arguments = ["--target", target, "--delay-ms", str(delay_ms)]
        if trace is not None:
            self._arguments += ["--trace", str(trace)]
        if source_ports is not None:
            self._arguments += ["--source-ports", "{}-{}".format(*source_ports)]
        if started is not None:
            self._arguments += ["--started", str(started)]
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self.port = 0
        self.report: dict[str, float] = {}

    async def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RunError: it does not come up; its own message is in the text.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "client.shaping.relay", *self._arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        self.port = int((await self._line(_START_S))["port"])
        self._listening = asyncio.create_task(self._listen(self._process))

    def signal(self, number: int) -> None:
        """Send it a signal, while it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self) -> dict[str, float]:
        """End it; return its `report`."""
        process, self._process = self._process, None
        if process is None:
            return {}
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
                if self._listening is not None:
                    await self._listening
        except TimeoutError:
            process.kill()
            await process.wait()
        return self.report

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Take in what it says until it ends."""
        assert process.stdout is not None, "a pipe"
        async for line in process.stdout:
            self.report |= json.loads(line)

    async def _line(self, patience_s: float) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise RunError("the relay is not running")
        try:
            async with asyncio.timeout(patience_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise RunError(f"the relay said nothing for {patience_s} s") from None
        if not line:
            raise RunError("the relay has ended; its message stands above")
        value: dict[str, Any] = json.loads(line)
        return value
