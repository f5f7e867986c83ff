"""A child process of the server as the event loop sees it: started, called, and ended.

Whatever happens to it, nobody waits for ever: when the process ends, every call under way raises
ChildDied. How a process is started is given, so that in virtual time a simulated one takes its
place; calls, replies and the pipe stay the same.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jellyfish.errors import DeviceError
from server.linux import ends_blocked
from server.pipe import LoopPipe

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]


class ChildDied(DeviceError):  # noqa: N818 - it reads as what happened
    """The process has ended; whatever it had been asked is lost."""


@dataclass(frozen=True)
class Command:
    """What a child runs: `python -m MODULE FD PARENT ARGS`, with its end of the pipe at FD."""

    module: str
    args: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # beside the server's own


class Process(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def kill(self) -> None:
        """End it at once; harmless once it has ended."""


class Launch(Protocol):
    """Starts processes."""

    def __call__(
        self, command: Command, on_exit: Callable[[int], None]
    ) -> tuple[Process, socket.socket]:
        """Start one; return it and this end of its pipe.

        `on_exit` is called in the loop once it has ended, with its exit code: negative where a
        signal ended it.
        """


class Child:
    """One life of a process that answers (number, method, args) with (number, value).

    Args:
        command: what it runs.
        name: what errors call it.
        launch: starts it.

    Attributes:
        alive: neither ended nor killed.
        answered: whether it has answered anything yet.
        cause: of its end, once it has ended.
    """

    def __init__(self, command: Command, name: str, launch: Launch) -> None:
        self.alive = True
        self.answered = False
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ended = asyncio.Event()
        self.cause = "killed"
        self._process, sock = launch(command, self._on_exit)
        self._pipe = LoopPipe(self._loop, sock, self._on_reply, self.kill)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def epitaph(self) -> str:
        """How it ended."""
        return f"{self._name}: its process {self.pid} ended ({self.cause})"

    async def call(self, method: str, *args: Any) -> Any:
        """Return what the child answers.

        Raises:
            ChildDied: it ended before it answered.
            JellyfishError: what it answered with.
        """
        if not self.alive:
            raise ChildDied(self.epitaph)
        number = next(self._numbers)
        self._calls[number] = reply = self._loop.create_future()
        self._pipe.send((number, method, args))
        try:
            return await reply
        finally:
            del self._calls[number]

    def kill(self) -> None:
        """End it at once: it holds nothing that would need saving."""
        self.alive = False
        self._process.kill()

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
        self.kill()
        await self._ended.wait()

    def _on_reply(self, message: Any) -> None:
        if not (isinstance(message, tuple) and len(message) == 2):
            log.error("%s says what is no reply, and is ended: %.80r", self._name, message)
            self.kill()
            return
        self.answered = True
        number, value = message
        reply = self._calls.get(number)
        if reply is None or reply.done():  # whoever asked has stopped waiting
            return
        if isinstance(value, Exception):
            reply.set_exception(value)
        else:
            reply.set_result(value)

    def _on_exit(self, code: int) -> None:
        self._pipe.read()  # what it answered before
        self._pipe.close()
        self.alive = False
        self.cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._ended.set()
        for reply in self._calls.values():
            if not reply.done():
                reply.set_exception(ChildDied(self.epitaph))


def launch(
    command: Command, on_exit: Callable[[int], None]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process of its own kind: a fork would take the server's threads and sockets along."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    path = os.environ.get("PYTHONPATH")
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}
    line = [sys.executable, "-m", command.module, str(theirs.fileno()), str(os.getpid())]
    with theirs, ends_blocked():
        process = subprocess.Popen(
            [*line, *command.args],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, **paths, **command.environment},
        )
    pidfd = os.pidfd_open(process.pid)

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_exit(process.wait())  # it has ended: this returns at once

    loop.add_reader(pidfd, ended)
    return process, ours
