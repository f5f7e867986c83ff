"""A mixed cell on hosts in namespaces, shaped by tc, and a network that goes away."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from client.session import expected_ticks
from experiment import grid, paths, processes
from experiment.cell import run_cell
from experiment.testbed import NamespaceTestbed, Node
from jellyfish.errors import RunError
from jellyfish.files.tables import read_table
from jellyfish.records import Outcome
from tests.integration.test_emulated_cell import config_over
from tests.namespaces import qdiscs, running
from tests.streams import Streams

Config = dict[str, Any]
CLIENTS = [[300, 10], [400, 5], [300, 5], [500, 10]]
STREAM_S = 12.0
pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def config(root: Path, testbed: NamespaceTestbed) -> Config:
    value = config_over(root, testbed.hosts)
    value["client"]["stream_s"] = STREAM_S
    value["mixed"] = {"four": CLIENTS}
    value["grid"][0] |= {"clients": [], "slo_ms": [], "fps": [], "mixed": ["four"]}
    return value


def cable(testbed: NamespaceTestbed, node: Node, state: str) -> None:
    """Pull out a host's cable at the switch, or put it in again."""
    switch = f"{testbed.prefix}-switch"
    subprocess.run(["ip", "-n", switch, "link", "set", node.name, state], check=True)


def measured(config: Config, results: Path, seed: int) -> Path:
    """Run the cell with a seed of its own; return its folder."""
    config = {**config, "seed": seed}
    (cell,) = grid.cells(config)
    (run,) = grid.runs(config, cell)
    run_cell(config, cell, results)
    return paths.run_folder(run.key, results)


def in_the_middle(testbed: NamespaceTestbed, do: Any) -> Thread:
    """Do something once clients stream, in a thread."""
    both = Streams(testbed.folder, "client-*.work")

    def wait_and_do() -> None:
        both.wait(4.0)
        do()

    thread = Thread(target=wait_and_do, daemon=True)
    thread.start()
    return thread


def check_rows(folder: Path) -> Any:
    frames = read_table(folder / "frames.parquet").to_pandas()
    for client, (_, fps) in enumerate(CLIENTS):
        mine = frames[frames.client == client]
        assert mine.frame.tolist() == list(range(expected_ticks(STREAM_S, fps)))
    return frames


def test_a_mixed_cell_shaped_by_tc(
    config: Config, results: Path, testbed: NamespaceTestbed
) -> None:
    before = qdiscs(testbed)
    folder = measured(config, results, seed=1)
    frames = check_rows(folder)
    assert (frames.outcome == Outcome.OK).mean() > 0.3  # whatever else this machine does
    assert frames.bandwidth_true_kbps.notna().all()  # the trace that tc followed
    for i in (1, 2):
        assert (folder / "hosts" / f"client-{i}" / "tc.json").exists()
    assert qdiscs(testbed) == before
    assert processes.wait_gone(running(testbed), 10.0) == []  # SSH sessions take a moment


def test_a_network_that_is_away_for_two_seconds(
    config: Config, results: Path, testbed: NamespaceTestbed
) -> None:
    def blink() -> None:
        cable(testbed, testbed.clients[0], "down")
        time.sleep(2.0)
        cable(testbed, testbed.clients[0], "up")

    meddler = in_the_middle(testbed, blink)
    folder = measured(config, results, seed=2)
    meddler.join(30.0)
    assert not meddler.is_alive()
    check_rows(folder)


def cut_off(
    config: Config, results: Path, testbed: NamespaceTestbed, node: Node, seed: int, said: str
) -> Path:
    """Pull out a host's cable in the middle of a run; check its end, and return what is kept."""
    before, cut_s = qdiscs(testbed), []

    def cut() -> None:
        cut_s.append(time.monotonic())
        cable(testbed, node, "down")

    meddler = in_the_middle(testbed, cut)
    try:
        with pytest.raises(RunError, match=said) as seen:
            measured(config, results, seed)
        took_s = time.monotonic() - cut_s[0]
        meddler.join(5.0)
        assert took_s < 30, seen.value
        assert processes.wait_gone(running(testbed), 30.0) == []
        assert qdiscs(testbed) == before
    finally:
        cable(testbed, node, "up")
    (run,) = grid.runs({**config, "seed": seed}, grid.cells(config)[0])
    return paths.run_folder(run.key, results).with_name(f".{run.key}.part")


def test_a_client_host_that_is_cut_off_for_good(
    config: Config, results: Path, testbed: NamespaceTestbed
) -> None:
    said = r"client-2: (nothing heard|the SSH session)"
    part = cut_off(config, results, testbed, testbed.clients[1], 3, said)
    rows = read_table(part / "frames.parquet").to_pandas()
    away = rows[rows.client.isin([1, 3])]  # taking turns
    assert Counter(away.client) == {
        client: expected_ticks(STREAM_S, CLIENTS[client][1]) for client in (1, 3)
    }
    assert set(away.outcome) == {Outcome.LOST}
    assert away.reason.str.match(f"the client left no rows: {said}").all()
    assert (rows[rows.client == 0].outcome == Outcome.OK).any()  # before
    (kept,) = testbed.folder.glob("client-2.work/runs/*/client-1.frames.parquet")
    assert (read_table(kept).to_pandas().outcome == Outcome.LOST).any()


def test_a_server_host_that_is_cut_off_for_good(
    config: Config, results: Path, testbed: NamespaceTestbed
) -> None:
    said = r"server: (nothing heard|the SSH session)"
    part = cut_off(config, results, testbed, testbed.server, 4, said)
    rows = read_table(part / "frames.parquet").to_pandas()
    assert set(rows.client) == set(range(len(CLIENTS)))
    for client in range(len(CLIENTS)):
        outcomes = rows[rows.client == client].outcome
        assert (outcomes == Outcome.OK).any()
        assert (outcomes == Outcome.LOST).any()
    assert not rows.reason.str.startswith("the client left no rows").any()
