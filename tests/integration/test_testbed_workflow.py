"""The workflow on hosts in namespaces: its manager is killed in the middle, and it is run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.session import expected_ticks
from experiment import grid, processes
from experiment.grid import Run
from experiment.testbed import NamespaceTestbed
from jellyfish.files.atomic import read_json
from jellyfish.files.tables import read_table
from scripts import scenario
from tests.integration.workflow_checkout import Checkout
from tests.namespaces import qdiscs, running
from tests.streams import Streams

STREAM_S, FPS = 10.0, 10
SCENARIO = f"""
scenario: two
zoo: config/zoo/yolov3-tiny-smoke.yaml
clips:
  few: {{asset: vtest, first: 0, frames: 12}}
traces:
  synthetic: {{kind: steps, mbps: [20, 7.5], step_s: 2}}
profile: {{clip: few, warmup: 2}}
server: {{policy: paper, start_timeout_s: 240}}
client: {{stream_s: {STREAM_S}, start_gap_s: [0, 1]}}
grid:
  - {{world: measured, device: gpu, workers: 1, traces: [synthetic], clients: [2],
     slo_ms: [300, 400], fps: [{FPS}], clips: [few], repetitions: 1}}
figures: {{fig_7: {{trace: synthetic, clients: 2, slo_ms: 300, fps: {FPS}}}}}
"""
pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(1200)]


class Workflow:
    """A checkout with a grid of two cells on the hosts of a testbed."""

    def __init__(self, root: Path, assets: Path, testbed: NamespaceTestbed) -> None:
        self.checkout = Checkout.copied_to(root)
        self.results = root / "results"
        for kind in ("weights", "videos"):
            shutil.copytree(assets / kind, self.results / "data" / kind)
        path = root / "two.yaml"
        path.write_text(f"hosts: {testbed.hosts}\n{SCENARIO}")
        config = scenario.read(path, root)
        self.runs: dict[Path, Run] = {}  # by the index of their cell
        for cell in grid.cells(config):
            (run,) = grid.runs(config, cell)
            self.runs[self.results / "two" / "cells" / f"{cell.name}.json"] = run
        targets = [str(index.relative_to(root)) for index in self.runs]
        asked = ["--cores", "all", *targets, "--configfile", path.name]
        self.command = [sys.executable, "-m", "experiment.launch", *asked]

    def folder(self, index: Path) -> Path:
        """Return the folder of a cell's run."""
        return self.results / "runs" / self.runs[index].key

    def kept(self, index: Path) -> dict[Path, tuple[int, bytes]]:
        """Return time and content of every file of a cell: its index, and its run's folder."""
        paths = [index, *(path for path in self.folder(index).rglob("*") if path.is_file())]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    def frames(self, index: Path) -> list[tuple[int, int]]:
        """Return client and frame of each row of a cell's run."""
        table = read_table(self.folder(index) / "frames.parquet").to_pandas()
        return sorted(zip(table.client.tolist(), table.frame.tolist(), strict=True))


def kill_in_the_second_cell(
    workflow: Workflow, testbed: NamespaceTestbed
) -> tuple[list[processes.ProcessId], list[str]]:
    """Run it, and kill it with all its jobs once the second cell streams.

    Returns:
        What ran on the hosts then, and their qdiscs.
    """
    log = workflow.checkout.root / "first.log"
    with log.open("w") as output:
        manager = subprocess.Popen(
            workflow.command,
            cwd=workflow.checkout.root,
            env={**os.environ, "PYTHONPATH": ""},
            stdout=output,
            stderr=output,
        )
    family: list[processes.ProcessId] = []
    try:
        for _ in workflow.runs:
            Streams(testbed.folder, "client-*.work").wait(3.0, lambda: manager.poll() is None)
        there, during = running(testbed), qdiscs(testbed)
        family = processes.descendants(manager.pid)
    finally:
        manager.kill()
        for process in family:
            processes.send(process, signal.SIGKILL)
        manager.wait()
    assert processes.wait_gone(family, 10.0) == []
    return there, during


def test_a_killed_manager_leaves_nothing_and_the_next_run_measures_only_what_is_missing(
    testbed: NamespaceTestbed, assets: Path, tmp_path: Path
) -> None:
    before = qdiscs(testbed)
    workflow = Workflow(tmp_path, assets, testbed)
    there, during = kill_in_the_second_cell(workflow, testbed)
    assert len(there) >= 12  # 3 agents, server, worker, planner, 2 clients, 2 relays, 2 tc
    assert sum("qdisc htb 4a46:" in line for line in during) == len(testbed.clients)
    assert processes.wait_gone(there, 30.0) == []
    assert processes.wait_gone(running(testbed), 10.0) == []  # SSH sessions take a moment
    assert qdiscs(testbed) == before

    (finished,) = (index for index in workflow.runs if index.exists())
    (killed,) = set(workflow.runs) - {finished}
    kept = workflow.kept(finished)
    assert len(kept) > 5
    assert not workflow.folder(killed).exists()

    again = workflow.checkout.run(*workflow.command)
    assert again.returncode == 0, again.stdout
    assert workflow.kept(finished) == kept
    ticks = range(expected_ticks(STREAM_S, FPS))
    assert workflow.frames(killed) == [(client, k) for client in (0, 1) for k in ticks]
    assert read_json(killed)["runs"][0]["key"] == workflow.runs[killed].key
    assert processes.wait_gone(running(testbed), 10.0) == []  # SSH sessions take a moment
    assert qdiscs(testbed) == before
