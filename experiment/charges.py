"""What a simulated run is charged for what it does not run, from the config."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jellyfish.charges import Charge, charge
from jellyfish.errors import ConfigError
from jellyfish.files.keys import read_keys

NAMES = (
    "scheduler_ms",
    "server_ms",
    "hand_over_ms",
    "device_ms",
    "transport_ms",
    "answer_ms",
)


def charge_settings(settings: Mapping[str, Any], device: str, root: Path) -> dict[str, Any]:
    """Return the config's `simulation` with what was recorded in the place of the file's name.

    Args:
        settings: the section of this name.
        device: the measured device whose charges a file must hold.
        root: what paths are relative to.

    Raises:
        ConfigError: a file cannot be read, or lacks a charge of that device.
    """
    return {
        name: _recorded(root / str(value["recorded"]), device, name)
        if isinstance(value, Mapping)
        else value
        for name, value in settings.items()
    }


def charges_of(settings: Mapping[str, Any]) -> dict[str, Charge]:
    """Return the charges, by name, in what `charge_settings` returned.

    Raises:
        ConfigError: a value cannot be one; the text names it.
    """
    found = {}
    for name in NAMES:
        try:
            found[name] = charge(settings[name])
        except ConfigError as error:
            raise ConfigError(f"config: simulation.{name}: {error}") from None
    return found


def _recorded(path: Path, device: str, name: str) -> Any:
    recorded = _read(path, path.stat().st_mtime_ns if path.is_file() else 0)
    of_device = recorded.get(device)
    if not isinstance(of_device, Mapping) or name not in of_device:
        known = ", ".join(map(str, recorded))
        raise ConfigError(
            f"config: simulation.{name}: {path} has none for device {device!r}; it has charges of "
            f"{known}; python -m experiment.record_charges makes them"
        )
    return of_device[name]


@cache
def _read(path: Path, changed: int) -> Mapping[str, Any]:
    try:
        return read_keys(path, "devices with their charges")
    except ConfigError as error:
        raise ConfigError(f"config: simulation: {error}") from None
