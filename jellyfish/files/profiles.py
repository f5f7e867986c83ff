"""A zoo's profile on disk: one JSON file of the four arrays (see jellyfish.profile)."""

from __future__ import annotations

from pathlib import Path

from jellyfish.errors import DataError, JellyfishError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.profile import Profile

FIELDS = ("input_px", "frame_bytes", "accuracy", "latency_ms")


def write_profile(path: Path, profile: Profile) -> None:
    """Write `profile` to `path`, whole."""
    write_json(path, profile.as_dict())


def read_profile(path: Path) -> Profile:
    """Return the profile in `path`.

    Raises:
        DataError: the file is missing, no profile, or a value in it is out of range.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not set(FIELDS) <= set(value):
        raise DataError(f"{path} is no profile: it needs {', '.join(FIELDS)}")
    try:
        return Profile(**{name: value[name] for name in FIELDS})
    except (JellyfishError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
