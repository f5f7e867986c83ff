"""A TCP relay that makes the way to the server as slow as a trace says, without privileges.

The uplink is a FIFO link: bytes are stamped when they come in, leave when the integral over the
trace says that their last bit would have, and then travel `delay`. The downlink is only delayed.
Departures are reckoned, not slept towards, so lateness never adds up; everything is read at once
into an unbounded queue, so socket buffers and flow control see an idle relay. Blocking threads
keep time about twice as well as an event loop does.

The trace begins with the first connection. Lines on stdout, JSON each: `{"port"}` when it
listens, `{"started_s"}` (CLOCK_MONOTONIC) before that first connection's first byte,
`{"bytes_up", "bytes_down"}` at SIGTERM.

Where tc shapes instead (`client.shaping.tc`), a relay without a trace gives the client's connection
the source port that tc knows it by, and tells tc in a file when the trace begins.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

from client.linux import die_with_parent, sleep_precisely
from jellyfish.errors import ConfigError, JellyfishError, RunError
from jellyfish.files.atomic import write_json
from jellyfish.trace import Trace

CHUNK_BYTES = 4096  # larger ones leave in visible lumps
_READ_BYTES = 1 << 18

Leave = Callable[[float, int], float]
"""(now, bytes) -> when the last of them leaves, on the monotonic clock."""


class Link:
    """The shaped uplink: one FIFO, shared by all connections.

    Args:
        trace: its rate from the first use on; None is a link without limit.
    """

    def __init__(self, trace: Trace | None) -> None:
        self._trace = trace
        self._origin: float | None = None
        self._free_s = 0.0
        self._lock = threading.Lock()

    def start(self, now: float) -> bool:
        """Let the trace begin at `now`, unless it has begun; tell whether it did so."""
        begins = self._origin is None
        if begins:
            self._origin = now
        return begins

    def leave(self, now: float, size: int) -> float:
        """Return when the last of `size` bytes that came in at `now` leaves."""
        if self._trace is None or self._origin is None:
            return now
        with self._lock:
            begin = max(now, self._free_s) - self._origin
            self._free_s = self._origin + self._trace.departure(begin, size * 8)
            return self._free_s


class Direction:
    """One way of one connection: a thread that reads and stamps, and one that writes on time."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, leave: Leave, delay_s: float
    ) -> None:
        self._source, self._sink = source, sink
        self._leave, self._delay_s = leave, delay_s
        self._queue: SimpleQueue[tuple[float, memoryview]] = SimpleQueue()
        self.bytes = 0
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._read, self._write)]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until both have ended."""
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        leaves = 0.0
        try:
            while data := memoryview(self._source.recv(_READ_BYTES)):
                now = time.monotonic()
                for i in range(0, len(data), CHUNK_BYTES):
                    chunk = data[i : i + CHUNK_BYTES]
                    leaves = self._leave(now, len(chunk))
                    self._queue.put((leaves + self._delay_s, chunk))
        except OSError:
            self._cut()
        # The end travels like a byte: behind all others, and delayed.
        self._queue.put((max(leaves, time.monotonic()) + self._delay_s, memoryview(b"")))

    def _write(self) -> None:
        try:
            while True:
                due, chunk = self._queue.get()
                wait = due - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                if not chunk:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(chunk)
                self.bytes += len(chunk)
        except OSError:
            self._cut()

    def _cut(self) -> None:
        """Break off both sides: one of them is gone, and the other shall know at once."""
        for end in (self._source, self._sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """Listens on a free port of 127.0.0.1 and relays each connection to `target`.

    Args:
        target: host and port of the server.
        trace: rate of the uplink; None for no limit.
        delay_s: added each way.
        tell: is handed each line for stdout.
        source_ports: what the connections to `target` leave from; None for any.
    """

    def __init__(
        self,
        target: tuple[str, int],
        trace: Trace | None,
        delay_s: float,
        tell: Callable[[dict[str, Any]], None],
        source_ports: range | None = None,
    ) -> None:
        self._target, self._delay_s, self._tell = target, delay_s, tell
        self._source_ports = source_ports
        self._link = Link(trace)
        self._directions: list[tuple[Direction, Direction]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> NoReturn:
        """Accept connections until an exception (a signal's, say) ends it."""
        with self._listener:
            while True:
                near, _ = self._listener.accept()
                now = time.monotonic()
                if self._link.start(now):
                    self._tell({"started_s": now})
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def counts(self) -> dict[str, int]:
        """Return the bytes handed on so far, both ways."""
        return {
            "bytes_up": sum(up.bytes for up, _ in self._directions),
            "bytes_down": sum(down.bytes for _, down in self._directions),
        }

    def _relay(self, near: socket.socket) -> None:
        with near:
            try:
                far = connect(self._target, self._source_ports)
            except OSError:
                return  # closing `near` tells the client
            far.settimeout(None)
            with far:
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                up = Direction(near, far, self._link.leave, self._delay_s)
                down = Direction(far, near, _at_once, self._delay_s)
                self._directions.append((up, down))
                for direction in (up, down):
                    direction.start()
                for direction in (up, down):
                    direction.join()


def _at_once(now: float, size: int) -> float:
    return now


def connect(target: tuple[str, int], source_ports: range | None) -> socket.socket:
    """Return a connection to `target` that leaves from one of the ports, the first that is free.

    Raises:
        OSError: there is no way, or no port is free.
    """
    taken = OSError(errno.EADDRINUSE, f"no free port of {source_ports}")
    for port in (0,) if source_ports is None else source_ports:
        source = ("", port) if port else None
        try:
            return socket.create_connection(target, timeout=10, source_address=source)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
            taken = error
    raise taken


def read_trace(path: Path) -> Trace:
    """Return the trace in a JSON file of `mbps` and `step_s`.

    Raises:
        ConfigError: there is none in it; the text names the file.
    """
    try:
        value = json.loads(path.read_text())
        return Trace(name=str(path), mbps=tuple(value["mbps"]), step_s=value["step_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no trace of mbps and step_s: {error!r}") from error


def _keep_time() -> None:
    """Sleep precisely, and where it is permitted, before all who share the core."""
    sys.setswitchinterval(0.0005)
    sleep_precisely()
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _teller(started: Path | None) -> Callable[[dict[str, Any]], None]:
    """Return what prints a line, and writes the start of the trace to `started` first."""

    def tell(line: dict[str, Any]) -> None:
        if started is not None and "started_s" in line:
            write_json(started, line)
        _print(line)

    return tell


def _ports(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise ConfigError(f"--source-ports {text}: want FIRST-LAST")
    return range(int(first), int(last) + 1)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m client.shaping.relay", description=__doc__)
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--trace", type=Path, help="JSON file of mbps (a list) and step_s")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added each way")
    parser.add_argument("--source-ports", metavar="FIRST-LAST", help="leave from one of these")
    parser.add_argument("--started", type=Path, help="file to write the trace's start to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a relay until SIGTERM; return the exit code."""
    options = _arguments(arguments)
    host, _, port = options.target.rpartition(":")
    try:
        if not (host and port.isdecimal()):
            raise ConfigError(f"--target {options.target}: want HOST:PORT")
        if not 0 <= options.delay_ms < inf:
            raise ConfigError(f"--delay-ms {options.delay_ms}: want 0 or more")
        trace = read_trace(options.trace) if options.trace else None
        ports = _ports(options.source_ports) if options.source_ports else None
        tell = _teller(options.started)
        delay_s = options.delay_ms / 1000
        relay = Relay((host.strip("[]"), int(port)), trace, delay_s, tell, ports)
    except OSError as error:
        return _fail(RunError(f"cannot listen on 127.0.0.1: {error}"))
    except JellyfishError as error:
        return _fail(error)
    die_with_parent()
    _keep_time()
    signal.signal(signal.SIGTERM, _stop)
    try:
        _print({"port": relay.port})
        relay.serve()
    except KeyboardInterrupt:
        _print(relay.counts())
    return 0


def _fail(error: JellyfishError) -> int:
    print(f"relay: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
