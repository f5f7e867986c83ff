"""YAML files that hold keys: configs, zoos, hosts, lists of assets, recorded charges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jellyfish.errors import ConfigError


def read_keys(path: Path, of: str) -> dict[str, Any]:
    """Return what the YAML file at `path` holds.

    Args:
        path: the file.
        of: whose keys it should hold, for the error.

    Raises:
        ConfigError: it cannot be read, is no YAML, or holds something else than keys; one line
            that names the file and, of what is no YAML, the line.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no keys of {of}")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"it is no YAML: line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OSError):
        return str(error.strerror)
    return " ".join(str(error).split())
