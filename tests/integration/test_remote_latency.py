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
from tests.integration.test_profiling import PROFILE, config, results, with_zoo
from tests.integration.test_remote_cell import remote_processes
from tests.sshd import MISSING, Sshd, available

__all__ = ["config", "results"]  # fixtures
Config = dict[str, Any]
pytestmark = [
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def asked(config: Config, results: Path, sshd: Sshd) -> Config:
    few = with_zoo(
        config, "config/zoo/yolov3-tiny-smoke.yaml", results
    )  # hosts get it with the code
    return {**few, "hosts": str(sshd.hosts_file()), "allow_dirty": True}


def test_the_host_of_the_server_is_measured(asked: Config, results: Path, sshd: Sshd) -> None:
    path = profiling.profile_latency(asked, "cpu", results)
    rounds = read_json(path)["rounds"]
    assert [each["host"] for each in rounds] == ["server"] * 10
    input_px = paths.zoo_of(asked).input_px
    for sizes in profiling.read_samples(path, input_px, (1, 2)).values():
        assert len(sizes[1]) == len(sizes[2]) == 100  # warm-up left out
        assert sizes[1].min() > 0
    here = {**asked, "hosts": None}
    assert paths.profile_folder(here, "cpu", results) != path.parent
    assert processes.wait_gone(remote_processes(sshd), 10.0) == []
    assert not list((sshd.folder / "work").glob("*/runs/*"))
    assert not list((sshd.folder / "work").glob("client-*"))  # nothing there was asked


@pytest.mark.hosts
@pytest.mark.slow
def test_a_device_that_the_host_lacks_is_told(asked: Config, results: Path, sshd: Sshd) -> None:
    lacking = {**asked["devices"]["cpu"], "kind": "torch", "device": "cuda:7"}
    devices = {**asked["devices"], "cpu": lacking}
    with pytest.raises(RunError, match=r"latency on server, cpu: (?s:.)*cuda:7"):
        profiling.profile_latency({**asked, "devices": devices}, "cpu", results)
    assert processes.wait_gone(remote_processes(sshd), 10.0) == []


@pytest.mark.hosts
@pytest.mark.slow
def test_a_killed_manager_leaves_nothing(
    asked: Config, results: Path, root: Path, sshd: Sshd
) -> None:
    asked = {**asked, "profile": {**asked["profile"], "warmup": 3}}  # a profile of its own
    command = [sys.executable, "-c", PROFILE, json.dumps(asked), str(results)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as manager:
        deadline = time.monotonic() + 240
        while len(there := remote_processes(sshd)) < 3:  # the agent, what measures, its worker
            assert manager.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        manager.kill()
    assert processes.wait_gone(there, 25.0) == []
    assert not paths.latency_path(asked, "cpu", results).exists()
