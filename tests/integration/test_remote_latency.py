"""Latencies of the server's device, measured on its host over real SSH; and how that fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiment import paths, processes, profiling
from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json
from tests.integration.test_profiling import PROFILE, results
from tests.integration.test_profiling import config as config_here
from tests.integration.test_remote_cell import remote_processes
from tests.sshd import MISSING, Sshd, available

__all__ = ["config_here", "results"]  # fixtures
Config = dict[str, Any]
PX = 128
pytestmark = [
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def config(config_here: Config, sshd: Sshd) -> Config:
    return {**config_here, "hosts": str(sshd.hosts_file()), "allow_dirty": True}


def test_the_host_of_the_server_is_measured(config: Config, results: Path, sshd: Sshd) -> None:
    path = profiling.profile_latency(config, "cpu", PX, results)
    found = read_json(path)
    assert found["host"] == "server"
    assert {size: len(samples) for size, samples in found["samples_ms"].items()} == {
        "1": 100,
        "2": 100,  # warm-up left out
    }
    assert profiling.read_samples(path, [1, 2])[1].min() > 0
    here = {**config, "hosts": None}
    assert paths.profile_folder(here, "cpu", results) != path.parents[1]
    assert processes.wait_gone(remote_processes(sshd), 10.0) == []
    assert not list((sshd.folder / "work").glob("*/runs/*"))
    assert not list((sshd.folder / "work").glob("client-*"))  # nothing there was asked


@pytest.mark.hosts
@pytest.mark.slow
def test_a_device_that_the_host_lacks_is_told(config: Config, results: Path, sshd: Sshd) -> None:
    lacking = {**config["devices"]["cpu"], "kind": "torch", "device": "cuda:7"}
    devices = {**config["devices"], "cpu": lacking}
    with pytest.raises(RunError, match=r"latency on server, cpu at 128 px: (?s:.)*cuda:7"):
        profiling.profile_latency({**config, "devices": devices}, "cpu", PX, results)
    assert processes.wait_gone(remote_processes(sshd), 10.0) == []


@pytest.mark.hosts
@pytest.mark.slow
def test_a_killed_manager_leaves_nothing(
    config: Config, results: Path, root: Path, sshd: Sshd
) -> None:
    command = [sys.executable, "-c", PROFILE, json.dumps(config), str(results)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as manager:
        deadline = time.monotonic() + 240
        while len(there := remote_processes(sshd)) < 3:  # the agent, what measures, its worker
            assert manager.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        manager.kill()
    assert processes.wait_gone(there, 25.0) == []
    assert not list((results / "profiles").rglob("608.json"))
