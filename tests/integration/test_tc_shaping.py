"""The manager's side of tc: preflight, start and stop on a host, and gRPC clients shaped by it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest

from client.shaping.tc_root import PORTS_EACH
from experiment.hosts import LocalConnection, Process
from experiment.shaping import HostProcess, ShapedClient
from experiment.tc_shaping import FIRST_PORT, TcSettings, TcShaper
from experiment.testbed import INTERFACE, NamespaceTestbed, Node
from jellyfish.errors import ConfigError, RunError
from jellyfish.protocol.jellyfish_pb2_grpc import add_JellyfishServicer_to_server
from jellyfish.trace import Trace, constant, from_rates
from tests.conftest import ROOT
from tests.integration.test_client import ClientProcess, Server, clip
from tests.integration.test_tc import in_node, kill_with_root, tc_shows

__all__ = ["clip"]  # a fixture


class NodeHost:
    """A host of the testbed without SSH: what a shaper is given of it."""

    python = sys.executable

    def __init__(self, node: Node, server: str, folder: Path) -> None:
        self.name, self.interface, self.server = node.name, INTERFACE, server
        self.node, self.folder = node, folder

    def write(self, name: str, value: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(value))
        return path

    def read(self, name: str) -> Any | None:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None

    def start(self, name: str, arguments: Sequence[str]) -> HostProcess:
        return Process(
            LocalConnection(),
            in_node(self.node, *arguments),
            name=name,
            folder=self.folder,
            root=ROOT,
        ).start()

    def call(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        done = subprocess.run(
            in_node(self.node, *arguments), capture_output=True, text=True, timeout=timeout_s
        )
        return done.returncode, done.stdout + done.stderr


def shaped(client: int, trace: Trace | None) -> ShapedClient:
    first = FIRST_PORT + PORTS_EACH * client
    return ShapedClient(client=client, source_ports=(first, first + PORTS_EACH - 1), trace=trace)


def test_from_preflight_to_stop(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    shaper = TcShaper(NodeHost(node, testbed.server.address, tmp_path))
    shaper.stop()  # nothing started is fine
    shaper.preflight()
    assert tc_shows(node) == before
    assert shaper.source_ports(3) == (FIRST_PORT + 48, FIRST_PORT + 63)
    assert "qdisc replace dev eth0 root" in shaper.dry_run([shaped(3, constant("t", 5))])
    shaper.start([shaped(3, constant("t", 5)), shaped(4, None)])
    during = tc_shows(node)
    assert "qdisc htb 4a46:" in during
    assert during.count("qdisc tbf") == 1  # client 4 has no limit
    shaper.stop()
    shaper.stop()
    assert tc_shows(node) == before


def test_clients_without_limits_need_no_tc(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    shaper = TcShaper(NodeHost(node, testbed.server.address, tmp_path))
    shaper.start([shaped(0, None)])
    assert tc_shows(node) == before
    shaper.stop()


@pytest.mark.parametrize("how", ["killed", "passed by"])
def test_shaping_that_fails_in_between_is_told_and_cleaned_up(
    testbed: NamespaceTestbed, tmp_path: Path, how: str
) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    shaper = TcShaper(NodeHost(node, testbed.server.address, tmp_path))
    shaper.start([shaped(0, constant("t", 5))])
    pid, _ = (tmp_path / "tc.pid").read_text().split()
    if how == "killed":
        subprocess.run(["kill", "-KILL", pid], check=True)
    else:  # the client says that it has begun, and nothing came by
        (tmp_path / "client-0.started.json").write_text(json.dumps({"started_s": 0.0}))
    with pytest.raises(RunError, match=r"client-1: (tc has not shaped|nothing that client 0 sent)"):
        shaper.stop()
    assert tc_shows(node) == before


def test_the_next_preflight_removes_what_a_dead_run_left(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    host = NodeHost(node, testbed.server.address, tmp_path)
    dead = TcShaper(host)
    dead.start([shaped(0, constant("t", 5))])
    pid, _ = (tmp_path / "tc.pid").read_text().split()
    kill_with_root(int(pid))
    assert tc_shows(node) != before
    TcShaper(host).preflight()
    assert tc_shows(node) == before
    with pytest.raises(RunError, match="tc has not shaped to the end"):
        dead.stop()


def test_what_is_wrong_is_told_with_the_host(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    node = testbed.clients[0]
    host = NodeHost(node, testbed.server.address, tmp_path)
    with pytest.raises(ConfigError, match=r"^client-1: .* burst_bytes 9: nothing would pass"):
        TcShaper(host, TcSettings(burst_bytes=9)).preflight()
    with pytest.raises(RunError, match=r"^client-1: tc does not shape: .*lie among those"):
        TcShaper(host).start(
            [ShapedClient(client=0, source_ports=(40000, 40015), trace=constant("t", 5))]
        )
    host.interface = "eth9"
    with pytest.raises(ConfigError, match=r"^client-1: .* has no interface 'eth9'"):
        TcShaper(host).preflight()


class NodeClient(ClientProcess):
    """`python -m client` on a host of the testbed."""

    node: Node

    async def start(self) -> None:
        command = in_node(self.node, sys.executable, "-m", "client", "--job")
        self.process = await asyncio.create_subprocess_exec(
            *command, str(self.out / "job.json"), stderr=asyncio.subprocess.PIPE
        )


async def stretches(
    testbed: NamespaceTestbed, folder: Path, clip: Path, trace: Trace, ports: list[int] | None
) -> list[float]:
    """Stream by gRPC; return each frame's time to its acknowledgement over the ideal link's."""
    folder.mkdir(exist_ok=True)
    server = grpc.aio.server()
    add_JellyfishServicer_to_server(Server(), server)
    port = server.add_insecure_port(f"{testbed.manager}:0")
    await server.start()
    try:
        client = NodeClient(
            folder,
            clip,
            port,
            server=f"{testbed.manager}:{port}",
            trace={"mbps": list(trace.mbps), "step_s": trace.step_s},
            source_ports=ports,
            fps=6,
            stream_s=2,
        )
        client.node = testbed.clients[0]
        assert await client.run() == (0, "")
    finally:
        await server.stop(0)
    rows = client.rows()
    assert {row["bandwidth_true_kbps"] for row in rows} == {mbps * 1000 for mbps in trace.mbps}
    origin_s, found = client.summary()["relay"]["started_s"], []
    for row in (row for row in rows if row["bytes_up"]):
        sent = row["sent_s"] - origin_s
        ideal_s = trace.departure(sent, row["bytes_up"] * 8) - sent
        found.append((row["acked_s"] - row["sent_s"]) / ideal_s)
    return found


async def test_grpc_clients_are_shaped_as_by_a_relay(
    testbed: NamespaceTestbed, tmp_path: Path, clip: Path
) -> None:
    """The first frame too: the trace is in force before the connection is."""
    trace = from_rates("t", [8, 4], 1)
    shaper = TcShaper(NodeHost(testbed.clients[0], testbed.manager, tmp_path))
    first, last = shaper.source_ports(4)
    shaper.start([ShapedClient(client=4, source_ports=(first, last), trace=trace)])
    by_tc = await stretches(testbed, tmp_path, clip, trace, [first, last])
    shaper.stop()
    by_relay = await stretches(testbed, tmp_path / "relay", clip, trace, None)
    for found in (by_tc, by_relay):
        assert len(found) == 12
        assert min(found) > 0.9, found  # nothing makes a frame early
        assert min(found) < 1.1, found  # and a busy machine makes some late
        assert median(found) < 1.4, found
