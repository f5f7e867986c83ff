"""Testbeds in namespaces for tests: made and removed by them, under names of their own."""

from __future__ import annotations

import ctypes
import os
import random
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from experiment import processes
from experiment.processes import ProcessId
from experiment.testbed import INTERFACE, NamespaceTestbed, missing, namespaces, remove_namespace
from tests.kernels import KEPT

T = TypeVar("T")

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
OWN, SHARED = "jt", "js"  # what names of a test's testbed and of all tests' begin with
_CLONE_NEWNET = 0x40000000


def own_prefix(kind: str = OWN) -> str:
    """Return a prefix that tells which process's it is, in 7 characters."""
    digits, pid = "", os.getpid()
    while pid:
        pid, digit = divmod(pid, 36)
        digits = _DIGITS[digit] + digits
    return kind + digits


def _remove_stale() -> None:
    """Remove what test processes left that were killed."""
    for name in namespaces():
        found = re.fullmatch(f"(?:{OWN}|{SHARED})([{_DIGITS}]+)-.*", name)
        if found and not _alive(int(found[1], 36)):
            remove_namespace(name)


def _alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def _free_network() -> str:
    shown = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True)
    free = [n for n in range(256) if f"10.75.{n}.0/24" not in shown.stdout]
    return f"10.75.{random.choice(free)}.0/24"


@contextmanager
def own_testbed(clients: int = 2, kind: str = OWN) -> Iterator[NamespaceTestbed]:
    """Yield a testbed of this test's own; skip the test where there can be none.

    Args:
        clients: how many client hosts.
        kind: OWN or SHARED; there may be one of each.
    """
    if why := missing():
        pytest.skip(f"no testbed of namespaces: {why}")
    _remove_stale()
    network = _free_network()
    with tempfile.TemporaryDirectory(prefix="jellyfish-test-") as folder:
        # A folder of its own for locks: tests wait for no measurement, and none waits for them.
        own = {"TMPDIR": folder, **KEPT}
        with NamespaceTestbed(
            Path(folder, "testbed"), own_prefix(kind), network, clients, own
        ) as testbed:
            yield testbed


def qdiscs(testbed: NamespaceTestbed) -> list[str]:
    """Return the lines about every host's interface that tc shows."""
    return [
        line
        for node in testbed.nodes
        for line in testbed.execute(node, "tc", "qdisc", "show").splitlines()
        if INTERFACE in line
    ]


def running(testbed: NamespaceTestbed) -> list[ProcessId]:
    """Return what runs in the namespaces but sshd."""
    found = []
    for node in testbed.nodes:
        shown = subprocess.run(
            ["ip", "netns", "pids", node.namespace], capture_output=True, text=True, check=True
        )
        pids = [int(pid) for pid in shown.stdout.split()]
        own = [pid for pid in pids if "python" in " ".join(processes.command(pid))]
        found += [one for pid in own if (one := processes.identify(pid)) is not None]
    return found


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Do something in a network namespace; sockets that it makes stay there."""
    results: list[T] = []

    def enter() -> None:
        with open(f"/run/netns/{namespace}") as handle:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        results.append(action())

    thread = threading.Thread(target=enter)  # a thread's namespace ends with the thread
    thread.start()
    thread.join()
    return results[0]


def connect(namespace: str, address: tuple[str, int]) -> socket.socket:
    """Return a connection from a namespace."""
    return inside(namespace, lambda: socket.create_connection(address, timeout=10))


def listen(namespace: str, address: str) -> socket.socket:
    """Return a listening socket in a namespace, on a free port."""
    listener = inside(namespace, lambda: socket.create_server((address, 0)))
    listener.settimeout(10)
    return listener
