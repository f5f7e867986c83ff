"""What all tests share: the real weights and video, downloaded once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from experiment.lock import held
from jellyfish.scheduling import solvers
from scripts.data import fetch_named

ROOT = Path(__file__).resolve().parents[1]

# CI judges a change, so it draws the same examples every time; at the desk each run looks further.
# No deadline for an example: another process of tests may have the core.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the schedulers compiled before any test's time runs: a minute in a fresh checkout.

    Before xdist starts its workers: they find what is compiled on disk.
    """
    if hasattr(session.config, "workerinput"):
        return
    solvers.warm("jellyfish")
    solvers.warm("paper")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def assets(root: Path) -> Path:
    """results/data with every asset of config/assets.yaml in it, fetched if it is missing."""
    data = root / "results" / "data"
    with held(data / ".tests.lock", "results/data"):  # by one of several processes of tests
        fetch_named(root / "config" / "assets.yaml", [], data)
    return data
