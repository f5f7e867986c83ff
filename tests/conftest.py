"""What all tests share: the real weights and video, downloaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.data import fetch_named

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def assets(root: Path) -> Path:
    """results/data with every asset of config/assets.yaml in it, fetched if it is missing."""
    data = root / "results" / "data"
    fetch_named(root / "config" / "assets.yaml", [], data)
    return data
