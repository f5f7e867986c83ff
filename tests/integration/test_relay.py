"""The relay keeps to its trace, adds its delay, and passes on how connections end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from jellyfish.trace import Trace, constant, from_rates

MESSAGE_BYTES = 50_000
ROUNDS = 3  # the machine is shared: a round may be disturbed, the median of three hardly


class RelayProcess:
    """A relay as a child process, and a listening socket as its target."""

    def __init__(
        self, folder: Path, trace: Trace | None, delay_ms: float, options: Sequence[str]
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        command = [sys.executable, "-m", "client.shaping.relay", "--target", target]
        command += ["--delay-ms", str(delay_ms), *options]
        if trace is not None:
            path = folder / "trace.json"
            path.write_text(json.dumps({"mbps": trace.mbps, "step_s": trace.step_s}))
            command += ["--trace", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self.line()["port"]

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        value: dict[str, Any] = json.loads(self.process.stdout.readline())
        return value

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection: the client's and the server's."""
        near = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        far, _ = self.listener.accept()
        for end in (near, far):
            end.settimeout(10)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return near, far

    def stop(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        counts = self.line()
        assert self.process.wait(5) == 0
        return counts

    def close(self) -> None:
        self.listener.close()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def relay(
    folder: Path, trace: Trace | None = None, delay_ms: float = 0, options: Sequence[str] = ()
) -> Iterator[RelayProcess]:
    process = RelayProcess(folder, trace, delay_ms, options)
    try:
        yield process
    finally:
        process.close()


def read_exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return bytes(data)


def goodput_error(folder: Path, mbps: float, seconds: float) -> float:
    """Return by how much a saturating transfer's goodput misses the trace, as a fraction."""
    size = int(mbps * 1e6 / 8 * seconds)
    with relay(folder, constant("flat", mbps)) as link:
        near, far = link.connect()
        with near, far:
            near.settimeout(None)
            sender = threading.Thread(target=near.sendall, args=(bytes(size),))
            sender.start()
            begin = time.monotonic()
            assert len(read_exactly(far, size)) == size
            took = time.monotonic() - begin
            sender.join()
    return abs(size * 8 / took / (mbps * 1e6) - 1)


@pytest.mark.parametrize("mbps", [5, 10, 40])
def test_a_saturating_transfer_gets_the_rate(tmp_path: Path, mbps: float) -> None:
    errors = [goodput_error(tmp_path, mbps, seconds=0.6) for _ in range(ROUNDS)]
    assert median(errors) < 0.02


def message_errors(folder: Path, trace: Trace, fps: float, count: int) -> list[float]:
    """Send messages at a steady rate; return each's arrival error against the ideal link.

    The errors are shares of what is tolerated: 5 % of the time under way, at least 2.5 ms.
    """
    sent, received = [], []
    with relay(folder, trace) as link:
        near, far = link.connect()
        origin = link.line()["started_s"]
        with near, far:

            def send() -> None:
                begin = time.monotonic()
                for k in range(count):
                    time.sleep(max(0.0, begin + k / fps - time.monotonic()))
                    sent.append(time.monotonic() - origin)
                    near.sendall(bytes(MESSAGE_BYTES))

            sender = threading.Thread(target=send)
            sender.start()
            for _ in range(count):
                assert len(read_exactly(far, MESSAGE_BYTES)) == MESSAGE_BYTES
                received.append(time.monotonic() - origin)
            sender.join()
    free, errors = 0.0, []
    for begin, arrival in zip(sent, received, strict=True):
        free = trace.departure(max(begin, free), MESSAGE_BYTES * 8)
        errors.append(abs(arrival - free) / max(0.05 * (free - begin), 0.0025))
    return errors


@pytest.mark.parametrize(
    ("fps", "trace"),
    [
        (15, constant("flat", 20)),
        (25, constant("flat", 20)),
        (25, from_rates("step", [20, 7.5, 20], 0.4)),  # a queue builds up, and empties again
    ],
)
def test_messages_arrive_as_on_the_ideal_link(tmp_path: Path, fps: float, trace: Trace) -> None:
    rounds = [median(message_errors(tmp_path, trace, fps, 28)) for _ in range(ROUNDS)]
    assert median(rounds) < 1


def test_delay_is_added_each_way_and_the_trace_only_upwards(tmp_path: Path) -> None:
    with relay(tmp_path, constant("slow", 1), delay_ms=40) as link:
        near, far = link.connect()
        with near, far:
            begin = time.monotonic()
            near.sendall(b"ping" * 2500)  # 80 kbit: 80 ms on the link
            assert read_exactly(far, 10_000) == b"ping" * 2500
            up = time.monotonic() - begin
            far.sendall(bytes(1_000_000))
            assert len(read_exactly(near, 1_000_000)) == 1_000_000
            down = time.monotonic() - begin - up
        assert 0.12 <= up < 1
        assert 0.04 <= down < 1  # a second of the uplink's rate would carry 0.1 MB only


def test_many_writes_and_both_ways_lose_nothing(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    with relay(tmp_path, constant("fast", 400)) as link:
        near, far = link.connect()
        echo: list[bytes] = []
        with near, far:
            reader = threading.Thread(target=lambda: echo.append(read_exactly(near, len(data))))
            server = threading.Thread(target=lambda: far.sendall(read_exactly(far, len(data))))
            reader.start()
            server.start()
            for i in range(0, len(data), 7001):
                near.sendall(data[i : i + 7001])
            reader.join(10)
            server.join(10)
        assert echo == [data]
        assert "started_s" in link.line()
        assert link.stop() == {"bytes_up": len(data), "bytes_down": len(data)}


def test_half_close_passes_behind_the_data(tmp_path: Path) -> None:
    with relay(tmp_path, constant("flat", 5), delay_ms=5) as link:
        near, far = link.connect()
        with near, far:
            near.sendall(b"question" * 1000)
            near.shutdown(socket.SHUT_WR)
            assert len(read_exactly(far, 10_000)) == 8000  # then the end
            far.sendall(b"answer")
            assert read_exactly(near, 6) == b"answer"
            far.shutdown(socket.SHUT_WR)
            assert near.recv(1) == b""


def test_connections_leave_from_the_ports_that_tc_knows(tmp_path: Path) -> None:
    started = tmp_path / "started.json"
    first = 20_000 + os.getpid() % 10_000  # below what Linux gives to any connection
    options = ["--source-ports", f"{first}-{first + 1}", "--started", str(started)]
    with relay(tmp_path, options=options) as link:
        assert not started.exists()
        ends = [link.connect() for _ in range(2)]
        assert [far.getpeername()[1] for _, far in ends] == [first, first + 1]
        assert json.loads(started.read_text()) == link.line()
        with socket.create_connection(("127.0.0.1", link.port), timeout=10) as third:
            assert third.recv(1) == b""  # no port is free: the connection is closed
        for near, far in ends:
            near.close()
            far.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_side_that_closes_is_noticed_by_the_other(tmp_path: Path, which: int) -> None:
    with relay(tmp_path, constant("flat", 5)) as link:
        ends = link.connect()
        ends[which].close()
        with ends[1 - which] as other:
            assert other.recv(1) == b""
        near, far = link.connect()  # and the relay lives on
        with near, far:
            near.sendall(b"next")
            assert read_exactly(far, 4) == b"next"


def test_a_reset_is_passed_on(tmp_path: Path) -> None:
    with relay(tmp_path, constant("slow", 0.1)) as link:
        near, far = link.connect()
        with near:
            near.sendall(bytes(100_000))  # 80 s of backlog must not hide it
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
            begin = time.monotonic()
            with suppress(ConnectionError):
                assert near.recv(1) == b""
            assert time.monotonic() - begin < 5


def test_no_server_closes_the_connection(tmp_path: Path) -> None:
    with relay(tmp_path) as link:
        link.listener.close()
        with socket.create_connection(("127.0.0.1", link.port), timeout=10) as near:
            assert near.recv(1) == b""


def test_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'client.shaping.relay', '--target', 'h:1'],"
        " stdout=subprocess.PIPE, text=True)\n"
        "port = p.stdout.readline()\n"
        "print(port, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        port = json.loads(parent.stdout.readline())["port"]
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            time.sleep(0.02)
        except OSError:
            refused = True
    assert refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "nowhere"], "want HOST:PORT"),
        (["--target", "h:1", "--trace", "/missing.json"], "/missing.json is no trace"),
        (["--target", "h:1", "--delay-ms", "nan"], "--delay-ms nan"),
        (["--target", "h:1", "--source-ports", "9"], "--source-ports 9: want FIRST-LAST"),
    ],
)
def test_wrong_arguments_give_one_line(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "client.shaping.relay", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_starts_without_what_is_slow_to_import() -> None:
    code = (
        "import sys, client.shaping.relay\n"
        "sys.exit(', '.join({'numpy', 'asyncio', 'cv2', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stderr.strip() == ""
