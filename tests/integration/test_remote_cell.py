"""A cell on hosts over real SSH, on loopback: emulated device, gRPC, relays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiment import grid, paths
from experiment.cell import run_cell
from jellyfish.files.atomic import read_json
from jellyfish.files.tables import read_table
from tests.integration.test_emulated_cell import config_of, prepare
from tests.sshd import MISSING, Sshd, available

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd") / "d") as sshd:
        yield sshd


@pytest.fixture(scope="module")
def config(root: Path, sshd: Sshd) -> dict[str, Any]:
    value = config_of(root)
    return value | {"hosts": str(sshd.hosts_file()), "allow_dirty": True}


@pytest.fixture(scope="module")
def results(
    config: dict[str, Any],
    root: Path,
    assets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("results")
    prepare(config, root, assets, folder)
    return folder


def test_two_clients_on_two_hosts(config: dict[str, Any], results: Path, sshd: Sshd) -> None:
    (cell,) = grid.cells(config)
    index = read_json(run_cell(config, cell, results))
    (run,) = grid.runs(config, cell)
    folder = paths.run_folder(run.key, results)
    frames = read_table(folder / "frames.parquet").to_pandas()
    assert len(frames) == 2 * 30
    assert index["runs"][0]["outcomes"]["ok"] > 30  # whatever else this machine does
