"""Where a result comes from: provenance.json, written last, so that its presence means complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json, write_json

NAME = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a result was made from, by, on and when.

    Args:
        key: the result's name, such as a run's key.
        config_hash: of the config values that the result depends on.
        settings: those values.
        world: `measured` or `simulated`.
        seed: what its random numbers start from.
        commit: of the checkout; `unknown` outside git.
        dirty: whether files under version control differed from the commit.
        code_digest: of the packages whose code decides the result.
        versions: of Python and of the libraries that matter.
        host, cpu, cores, system: the machine.
        device: what executed DNNs.
        started, ended: UTC, ISO 8601.
        digests: of files that the result was made from, such as the profile.
    """

    key: str
    config_hash: str
    settings: Mapping[str, Any]
    world: str
    seed: int
    commit: str
    dirty: bool
    code_digest: str
    versions: Mapping[str, str]
    host: str
    cpu: str
    cores: int
    system: str
    device: str
    started: str
    ended: str
    digests: Mapping[str, str] = field(default_factory=dict)


def write_provenance(folder: Path, provenance: Provenance) -> Path:
    """Write `provenance` into `folder`; call it after everything else is there."""
    path = folder / NAME
    write_json(path, asdict(provenance))
    return path


def read_provenance(folder: Path) -> Provenance:
    """Return the provenance of the result in `folder`.

    Raises:
        DataError: there is none, or it lacks a field or has an unknown one.
    """
    value = read_json(folder / NAME)
    known = {f.name for f in fields(Provenance)}
    if not isinstance(value, dict) or set(value) != known:
        raise DataError(f"{folder / NAME} does not hold {', '.join(sorted(known))}")
    return Provenance(**value)


def is_complete(folder: Path, config_hash: str) -> bool:
    """Whether `folder` holds a whole result that was made with these config values."""
    try:
        return read_provenance(folder).config_hash == config_hash
    except DataError:
        return False
