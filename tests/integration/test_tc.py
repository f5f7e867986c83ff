"""tc shapes each client's own connection by its own trace, nothing else, and leaves no trace."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from client.shaping import tc_root
from client.shaping.tc_helper import INSTALLED
from client.shaping.tc_root import PORTS_EACH
from experiment.testbed import INTERFACE, NamespaceTestbed, Node
from jellyfish.trace import Trace, constant, from_rates
from tests.namespaces import connect, inside, listen

ROUNDS = 3  # the machine is shared: a round may be disturbed, the median of three hardly
FIRST_PORT = 20480
MESSAGE_BYTES = 50_000


def tc_shows(node: Node) -> str:
    command = ["tc", "-n", node.namespace, "qdisc", "show"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(r" (refcnt|direct_packets_stat) \d+", "", shown)  # they count packets


def in_node(node: Node, *command: str) -> list[str]:
    return ["ip", "netns", "exec", node.namespace, *command]


class Host:
    """A client host: the tc helper and a relay for each client, as processes in its namespace."""

    def __init__(
        self, testbed: NamespaceTestbed, node: Node, folder: Path, traces: Sequence[Trace]
    ) -> None:
        self.testbed, self.node, self.folder = testbed, node, folder
        folder.mkdir(exist_ok=True)
        self.listener = listen(testbed.server.namespace, testbed.server.address)
        self.target = self.listener.getsockname()
        self.job = folder / "tc.job.json"
        self.write_job(traces)
        self.relays: list[subprocess.Popen[str]] = []
        self.helper: subprocess.Popen[str] | None = None

    def write_job(self, traces: Sequence[Trace], first_port: int = FIRST_PORT) -> None:
        clients = [
            {
                "client": i,
                "first_port": first_port + PORTS_EACH * i,
                "trace": {"mbps": trace.mbps, "step_s": trace.step_s},
            }
            for i, trace in enumerate(traces)
        ]
        job = {
            "server": self.target[0],
            "interface": INTERFACE,
            "clients": clients,
            "out_dir": str(self.folder),
            "max_s": 60,
        }
        self.job.write_text(json.dumps(job))

    def command(self, *options: str) -> list[str]:
        module = [sys.executable, "-m", "client.shaping.tc", "--job", str(self.job), *options]
        return in_node(self.node, *module)

    def run(self, *options: str, user: str | None = None) -> tuple[int, str]:
        """Run the helper to its end; return exit code and what it wrote."""
        command = self.command(*options)
        if user is not None:
            command = self.as_user(user, command)
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.returncode, (done.stdout + done.stderr).strip()

    def as_user(
        self, user: str, command: list[str], rules: Path | None = None, more: str = "true"
    ) -> list[str]:
        """Return the command as another user's.

        Args:
            user: whose.
            command: of this host.
            rules: sudo's, instead of this machine's; then the helper is installed, too.
            more: done by root before.
        """
        setpriv = ["setpriv", f"--reuid={user}", "--clear-groups", *command[4:]]
        if rules is None:
            return in_node(self.node, *setpriv)
        # All of it is seen by this one process alone.
        mount = 'mount --bind "$0" /etc/sudoers && mount -t tmpfs -o mode=755 none /usr/local/sbin'
        install = f"install -o root -g root -m 0755 {tc_root.__file__} {INSTALLED}"
        script = f'{mount} && {install} && {more} && exec "$@"'
        return in_node(self.node, "sh", "-c", script, str(rules), *setpriv)

    def start(self, *options: str) -> None:
        self.begin(self.command(*options))

    def start_below_a_parent_that_dies(self) -> None:
        code = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(2)"
        self.begin([sys.executable, "-c", code, *self.command()])

    def begin(self, command: list[str]) -> None:
        ready = self.folder / "tc.ready.json"
        ready.unlink(missing_ok=True)
        self.close_helper()
        self.helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not ready.exists():
            if self.helper.poll() is not None:
                assert self.helper.stderr is not None
                raise AssertionError(self.helper.stderr.read())
            time.sleep(0.005)

    def kill(self) -> None:
        assert self.helper is not None
        kill_with_root(self.helper.pid)
        self.helper.wait()

    def stop(self) -> dict[str, Any]:
        assert self.helper is not None
        self.helper.send_signal(signal.SIGTERM)
        assert self.helper.wait(10) == 0
        report: dict[str, Any] = json.loads((self.folder / "tc.json").read_text())
        return report

    def connection(self, client: int) -> tuple[socket.socket, socket.socket, float]:
        """Return both ends of a client's connection, and when its trace began."""
        first = FIRST_PORT + PORTS_EACH * client
        target = "{}:{}".format(*self.target)
        options = ["--target", target, "--source-ports", f"{first}-{first + PORTS_EACH - 1}"]
        options += ["--started", str(self.folder / f"client-{client}.started.json")]
        relay = subprocess.Popen(
            in_node(self.node, sys.executable, "-m", "client.shaping.relay", *options),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.relays.append(relay)
        assert relay.stdout is not None
        port = json.loads(relay.stdout.readline())["port"]
        near = connect(self.node.namespace, ("127.0.0.1", port))
        far, _ = self.listener.accept()
        assert far.getpeername()[1] in range(first, first + PORTS_EACH)
        for end in (near, far):
            end.settimeout(20)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return near, far, float(json.loads(relay.stdout.readline())["started_s"])

    def close(self) -> None:
        self.listener.close()
        self.close_helper()
        for relay in self.relays:
            finish(relay)

    def close_helper(self) -> None:
        if self.helper is not None:
            finish(self.helper)


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def kill_with_root(pid: int) -> None:
    """Kill a shaper and its child that is root, which would put the interface back."""
    os.kill(pid, signal.SIGSTOP)  # or it would start another one
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


@contextmanager
def host(
    testbed: NamespaceTestbed, node: Node, folder: Path, traces: Sequence[Trace]
) -> Iterator[Host]:
    made = Host(testbed, node, folder, traces)
    try:
        yield made
    finally:
        made.close()
        if made.helper is not None:
            assert made.run("--clean")[0] == 0


def run_first() -> None:
    """Let this thread measure on a machine where much else runs."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


class Flood:
    """A saturating transfer over one connection; remembers when how much had arrived."""

    def __init__(self, near: socket.socket, far: socket.socket, seconds: float) -> None:
        self.begin_s = time.monotonic()
        self._ends, self._end_s = (near, far), self.begin_s + seconds
        self.arrivals: list[tuple[float, int]] = [(self.begin_s, 0)]
        self._threads = [threading.Thread(target=t) for t in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        run_first()
        data = bytes(20_000)
        while time.monotonic() < self._end_s:
            self._ends[0].sendall(data)
            time.sleep(0.002)  # 80 Mbit/s: more than any trace here, and the relay keeps it all
        self._ends[0].shutdown(socket.SHUT_RDWR)

    def _receive(self) -> None:
        run_first()
        total = 0
        while time.monotonic() < self._end_s and (data := self._ends[1].recv(1 << 16)):
            total += len(data)
            self.arrivals.append((time.monotonic(), total))

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def bits(self, begin: float, end: float) -> float:
        """Return the bits that arrived between two times."""
        times = [0, 0]
        for i, limit in enumerate((begin, end)):
            times[i] = max((total for t, total in self.arrivals if t <= limit), default=0)
        return (times[1] - times[0]) * 8.0


def step_errors(flood: Flood, trace: Trace, started_s: float) -> dict[int, float]:
    """Return by how much each step's goodput misses the trace, as a fraction.

    What was before the transfer had begun is left out, and so is its slow start.
    """
    errors = {}
    for k, mbps in enumerate(trace.mbps):
        begin = max(started_s + k * trace.step_s, flood.begin_s + 0.1)
        end = started_s + (k + 1) * trace.step_s
        if end - begin > trace.step_s / 2:
            errors[k] = flood.bits(begin, end) / (mbps * 1e6 * (end - begin)) - 1
    return errors


def test_each_client_follows_its_own_trace_and_nothing_else_is_slowed(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    """Two shaped clients, and beside them SSH, other connections and the other host, at once."""
    traces = [from_rates("a", [20, 7.5, 15, 5], 0.8), from_rates("b", [5, 10, 40, 10], 0.8)]
    errors: dict[tuple[int, int], list[float]] = defaultdict(list)
    fastest = [0.0, 0.0, 0.0]
    for k in range(2 * ROUNDS):  # until every step was undisturbed in one
        found, free_mbps, report = flood_all(testbed, tmp_path / str(k), traces)
        fastest = [max(pair) for pair in zip(fastest, free_mbps, strict=True)]
        for step, error in found.items():
            errors[step].append(abs(error))
        for client in report["clients"]:
            assert client["changes"] >= 3
            assert client["dropped"] == 0
            assert client["frames"] > 1000
        if max(map(min, errors.values())) < 0.05 and min(fastest) > 60:
            break
    assert {step: missed for step, missed in errors.items() if min(missed) > 0.05} == {}
    assert len(errors) >= 6  # of 8 steps; a transfer may begin after the first
    assert min(fastest) > 60, fastest  # shaped, it would be 40 at most


def flood_all(
    testbed: NamespaceTestbed, folder: Path, traces: Sequence[Trace]
) -> tuple[dict[tuple[int, int], float], list[float], dict[str, Any]]:
    """Saturate every uplink at once.

    Returns:
        The goodput error by client and step; the goodput in Mbit/s of what is not shaped, from the
        same host, from the other one, and by SSH; tc's report.
    """
    node, other = testbed.clients
    with host(testbed, node, folder, traces) as shaped:
        shaped.start()
        connections = [shaped.connection(i) for i in range(len(traces))]
        seconds = traces[0].period_s + 0.2
        floods = [Flood(near, far, seconds) for near, far, _ in connections]
        free_mbps = [free_rate(shaped, place) for place in (node, other)]
        free_mbps.append(ssh_rate(testbed, node))
        errors = {}
        for client, flood in enumerate(floods):
            flood.join()
            found = step_errors(flood, traces[client], connections[client][2])
            errors |= {(client, step): error for step, error in found.items()}
        return errors, free_mbps, shaped.stop()


def free_rate(shaped: Host, node: Node) -> float:
    """Return the goodput in Mbit/s of an unshaped transfer of 5 MB from a host to the server."""
    near = connect(node.namespace, shaped.target)
    far, _ = shaped.listener.accept()
    with near, far:
        sender = threading.Thread(target=near.sendall, args=(bytes(5_000_000),))
        begin = time.monotonic()
        sender.start()
        read_exactly(far, 5_000_000)
        took = time.monotonic() - begin
        sender.join()
    return 40 / took


def ssh_rate(testbed: NamespaceTestbed, node: Node) -> float:
    """Return the goodput in Mbit/s of 20 MB that come from a host by SSH."""
    ssh = ["ssh", "-F", str(testbed.ssh_config), node.namespace, "head -c 20000001 /dev/zero"]
    with subprocess.Popen(ssh, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        session.stdout.read(1)
        begin = time.monotonic()
        assert len(session.stdout.read()) == 20_000_000
        return 160 / (time.monotonic() - begin)


def read_exactly(end: socket.socket, size: int) -> None:
    while size:
        data = end.recv(size)
        assert data, "the other side has ended"
        size -= len(data)


@pytest.mark.parametrize(("before", "after"), [(20, 7.5), (7.5, 20), (0.02, 20)])
def test_a_frame_sent_at_a_step_arrives_when_the_trace_says(
    testbed: NamespaceTestbed, tmp_path: Path, before: float, after: float
) -> None:
    """In the last case a frame's packet still waits at the slow rate when the fast one begins."""
    trace = from_rates("step", [before, after], 0.3)
    errors: list[float] = []
    with host(testbed, testbed.clients[0], tmp_path, [trace]) as shaped:
        shaped.start()
        near, far, started_s = shaped.connection(0)

        def measure() -> None:
            run_first()
            while len(errors) < 20 and sum(abs(error) < 0.1 for error in errors) < ROUNDS:
                k = 2 * int((time.monotonic() - started_s + 0.2) / (2 * trace.step_s)) + 3
                sent_s = started_s + k * trace.step_s + (0.002 if before > 1 else -0.1)
                time.sleep(max(0.0, sent_s - time.monotonic()))
                sent = time.monotonic() - started_s
                near.sendall(bytes(MESSAGE_BYTES))
                read_exactly(far, MESSAGE_BYTES)
                took = time.monotonic() - started_s - sent
                errors.append(took / (trace.departure(sent, MESSAGE_BYTES * 8) - sent) - 1)

        with near, far:
            thread = threading.Thread(target=measure)
            thread.start()
            thread.join()
    assert min(errors) > -0.1, errors  # nothing makes a frame early, and a busy machine some late
    assert sum(error < 0.1 for error in errors) >= ROUNDS, errors


def test_an_interface_with_a_qdisc_of_its_own_gets_it_back(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    for own in ("tbf rate 900mbit burst 20kb latency 50ms", "pfifo limit 77"):
        with root_qdisc_of(node, own):
            before = tc_shows(node)
            with host(testbed, node, tmp_path, [constant("t", 5)]) as shaped:
                shaped.start()
                assert "qdisc htb 4a46:" in tc_shows(node)
                shaped.stop()
                assert tc_shows(node) == before
                shaped.start()
                shaped.kill()
                assert "qdisc htb 4a46:" in tc_shows(node)
                shaped.run("--clean")
            assert tc_shows(node) == before


@contextmanager
def root_qdisc_of(node: Node, own: str) -> Iterator[None]:
    tc = ["tc", "-n", node.namespace, "qdisc"]
    where = ["dev", INTERFACE, "root"]
    subprocess.run([*tc, "add", *where, "handle", "8001:", *own.split()], check=True)
    try:
        yield
    finally:
        subprocess.run([*tc, "delete", *where], check=True)


def test_a_qdisc_that_could_not_be_put_back_is_not_touched(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    with root_qdisc_of(node, "htb"), host(testbed, node, tmp_path, [constant("t", 5)]) as shaped:
        before = tc_shows(node)
        for options in (["--check"], []):
            code, said = shaped.run(*options)
            assert code == 1
            assert "eth0 has a qdisc that could not be put back" in said
        assert tc_shows(node) == before


@pytest.mark.parametrize("victim", ["helper", "root", "both", "lease", "parent", "silence"])
def test_nothing_is_left_when_the_run_dies(
    testbed: NamespaceTestbed, tmp_path: Path, victim: str
) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    with host(testbed, node, tmp_path, [constant("t", 5)]) as shaped:
        if victim == "parent":
            shaped.start_below_a_parent_that_dies()
        else:
            lease_s = {"lease": ["--lease-s", "30"], "silence": ["--lease-s", "0.3"]}
            shaped.start(*lease_s.get(victim, []))
        assert shaped.helper is not None
        if victim == "helper":
            shaped.helper.kill()
        elif victim == "root":
            pid = shaped.helper.pid
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(int(child), signal.SIGKILL)
        elif victim == "both":
            shaped.kill()
            assert "qdisc htb 4a46:" in tc_shows(node)
            assert shaped.run("--check") == (0, "")  # what the next run begins with
        elif victim == "lease":
            assert shaped.helper.stdin is not None
            shaped.helper.stdin.close()
        deadline = time.monotonic() + 10
        while tc_shows(node) != before:
            assert time.monotonic() < deadline, tc_shows(node)
            time.sleep(0.02)


def test_two_at_once_on_one_interface_are_refused(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    with host(testbed, node, tmp_path, [constant("t", 5)]) as shaped:
        shaped.start()
        during = tc_shows(node)
        for options in (["--check"], ["--clean"], []):
            code, said = shaped.run(*options)
            assert code == 1
            assert "another run shapes eth0 now" in said
        assert tc_shows(node) == during
        shaped.stop()


def test_a_failing_command_ends_it_and_is_told(testbed: NamespaceTestbed, tmp_path: Path) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    trace = from_rates("t", [5, 10], 0.2)
    with host(testbed, node, tmp_path, [trace]) as shaped:
        shaped.start()
        near, far, _ = shaped.connection(0)
        with near, far:
            tc = ["tc", "-n", node.namespace, "qdisc", "delete", "dev", INTERFACE, "root"]
            subprocess.run(tc, check=True)  # somebody meddles
            assert shaped.helper is not None
            assert shaped.helper.wait(10) == 1
        assert shaped.helper.stderr is not None
        assert "tc ended" in shaped.helper.stderr.read()
    assert tc_shows(node) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"interface": "eth7"}, "has no interface 'eth7'; there are: eth0, lo"),
        ({"interface": "lo"}, "is reached by eth0, not by lo; name eth0"),
        ({"server": "192.0.2.1"}, "Network is unreachable"),
        ({"server": "no.such.host.invalid"}, "does not know server no.such.host.invalid"),
        ({"clients": [{"client": 0}]}, "clients: KeyError('trace')"),
        ({"bogus": 1}, "unknown key 'bogus'; there are: server, clients"),
        ({"leaf": "fq"}, "tc leaf 'fq': want tbf or htb"),
        ({"burst_bytes": 1000}, "burst_bytes 1000: nothing would pass"),
    ],
)
def test_wrong_jobs_are_told_in_one_line(
    testbed: NamespaceTestbed, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with host(testbed, testbed.clients[0], tmp_path, [constant("t", 5)]) as shaped:
        good = shaped.job.read_text()
        shaped.job.write_text(json.dumps({**json.loads(good), **change}))
        code, said = shaped.run("--check")
        shaped.job.write_text(good)
    assert code == 1
    assert says in said
    assert said.startswith("tc: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("first_port", [40000, None])
def test_ports_of_others_are_refused(
    testbed: NamespaceTestbed, tmp_path: Path, first_port: int | None
) -> None:
    node = testbed.clients[0]
    taken = inside(node.namespace, lambda: socket.create_server(("", FIRST_PORT + 5)))
    with taken, host(testbed, node, tmp_path, [constant("t", 5)]) as shaped:
        if first_port is not None:
            shaped.write_job([constant("t", 5)], first_port=first_port)
        code, said = shaped.run("--check")
        shaped.write_job([constant("t", 5)])
    assert code == 1
    assert ("lie among those" if first_port else f"source port {FIRST_PORT + 5} is in use") in said


def test_a_dry_run_prints_the_commands_and_does_nothing(
    testbed: NamespaceTestbed, tmp_path: Path
) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    with host(testbed, node, tmp_path, [from_rates("t", [20, 7.5], 20)]) as shaped:
        code, said = shaped.run("--dry-run")
    assert code == 0
    lines = said.splitlines()
    assert "tc qdisc replace dev eth0 root handle 4a46: htb default 0" in lines[0]
    assert "# 20 s after client 0 has begun, and so on:" in lines
    assert lines[-1].endswith("tc qdisc delete dev eth0 root")
    assert all(line.startswith(("#", "/")) for line in lines)
    assert tc_shows(node) == before


def test_without_root_it_says_which_right_it_needs(testbed: NamespaceTestbed) -> None:
    node = testbed.clients[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        host(testbed, node, Path(folder), [constant("t", 5)]) as shaped,
    ):
        Path(folder).chmod(0o755)
        code, said = shaped.run("--check", user="nobody")
    assert code == 1
    assert "nobody@" in said
    assert re.search(r"may not shape traffic: .*(is not installed|sudo: )", said)
    assert f"install -o root -g root -m 0755 {tc_root.__file__} {INSTALLED}\n" in said
    assert said.endswith(f"nobody ALL=(root) NOPASSWD: {INSTALLED} eth0")


@contextmanager
def permitted(testbed: NamespaceTestbed, node: Node, traces: Sequence[Trace]) -> Iterator[Host]:
    """Yield a host where sudo lets nobody run the helper for eth0; `rules` in its folder say so."""
    if shutil.which("sudo") is None:
        pytest.skip("sudo is not installed; say make install-testbed")
    with tempfile.TemporaryDirectory() as folder, host(testbed, node, Path(folder), traces) as one:
        Path(folder).chmod(0o777)
        rules = Path(folder, "rules")
        rules.write_text(f"nobody ALL=(root) NOPASSWD: {INSTALLED} eth0\n")
        rules.chmod(0o440)
        yield one


def test_with_that_right_any_user_shapes(testbed: NamespaceTestbed) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    with permitted(testbed, node, [from_rates("t", [5, 10], 0.1)]) as shaped:
        shaped.begin(shaped.as_user("nobody", shaped.command(), shaped.folder / "rules"))
        near, far, _ = shaped.connection(0)
        with near, far:
            time.sleep(0.5)
        assert "qdisc htb 4a46:" in tc_shows(node)
        assert shaped.stop()["clients"][0]["changes"] >= 4
    assert tc_shows(node) == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("tc -batch -", "a password is required"),
        (f"{INSTALLED} lo", "a password is required"),
        (f"{INSTALLED} eth0 -batch", "a password is required"),
        (f"{INSTALLED}", "a password is required"),
        (f"-E {INSTALLED} eth0", "not allowed to preserve the environment"),
        (f"PYTHONPATH=/tmp {INSTALLED} eth0", "not allowed to set the following environment"),
        (f"LD_PRELOAD=/tmp/x {INSTALLED} eth0", "not allowed to set the following environment"),
        (f"-D /tmp {INSTALLED} eth0", "not permitted to use the -D option"),
        (f"{INSTALLED} eth0", "exec bpf import x run id"),  # the helper's answer
    ],
)
def test_that_right_is_no_other(testbed: NamespaceTestbed, command: str, says: str) -> None:
    node = testbed.clients[0]
    before = tc_shows(node)
    with permitted(testbed, node, [constant("t", 5)]) as shaped:
        asked = [*in_node(node), "sudo", "-n", *command.split()]
        asked = shaped.as_user("nobody", asked, shaped.folder / "rules")
        done = subprocess.run(
            asked, input="root 1000\nexec bpf import x run id\n", capture_output=True, text=True
        )
    assert done.returncode == 1
    assert says in done.stderr
    assert tc_shows(node) == before


@pytest.mark.parametrize(
    ("meddle", "says"),
    [
        (f"rm {INSTALLED}", f"{INSTALLED} is not installed"),
        (f"chown nobody {INSTALLED}", f"nobody could change {INSTALLED}, and sudo runs"),
        (f"chmod 777 {INSTALLED.parent}", f"nobody could change {INSTALLED.parent}, and sudo"),
        (f"sed -i 's/^VERSION = .*/VERSION = 0/' {INSTALLED}", "is of version 0, but 1 is needed;"),
    ],
)
def test_a_helper_that_is_old_or_unsafe_is_told(
    testbed: NamespaceTestbed, meddle: str, says: str
) -> None:
    with permitted(testbed, testbed.clients[0], [constant("t", 5)]) as shaped:
        rules = shaped.folder / "rules"
        command = shaped.as_user("nobody", shaped.command("--check"), rules, meddle)
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert says in done.stderr
    assert f"install -o root -g root -m 0755 {tc_root.__file__} {INSTALLED}" in done.stderr
    assert len(done.stderr.splitlines()) == (1 if "version" in says else 3)
