"""What measured cells in these tests share: a testbed in namespaces, and inputs of the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiment.cores import awake
from experiment.testbed import NamespaceTestbed
from tests.integration.test_emulated_cell import prepare
from tests.kernels import KEPT
from tests.namespaces import SHARED, own_testbed
from tests.sshd import Sshd

HERE = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    """These tests run alone, but for those that say that they need not."""
    if item.path.is_relative_to(HERE) and not item.get_closest_marker("beside"):
        item.add_marker("alone")


@pytest.fixture(scope="module", autouse=True)
def cores_that_wake() -> Iterator[None]:
    """Keep cores from idle states, as runs do: what is asked of times is asked of this code."""
    with awake():
        yield


@pytest.fixture(scope="session", name="testbed")
def one_testbed() -> Iterator[NamespaceTestbed]:
    """A server and two client hosts in namespaces; what a test changes there it puts back.

    One for all modules: the first that measures has code put there.
    """
    with own_testbed(kind=SHARED) as made:
        yield made


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd of the module's own, on loopback."""
    with Sshd(tmp_path_factory.mktemp("sshd") / "d", environment=KEPT) as started:
        yield started


@pytest.fixture(scope="module")
def results(
    config: dict[str, Any], root: Path, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A results directory with all that cells of the module's `config` start from."""
    folder = tmp_path_factory.mktemp("results")
    prepare(config, root, assets, folder)
    return folder
