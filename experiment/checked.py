"""Checks of YAML files against JSON schemas, with errors that name file and key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from jellyfish.errors import ConfigError


def check(value: Any, schema: Mapping[str, Any], what: str) -> None:
    """Check `value` against a JSON schema.

    Args:
        value: what was read.
        schema: what it must fit.
        what: what the error calls it, such as its file.

    Raises:
        ConfigError: it does not fit; the text names the key and what it may be.
    """
    error = best_match(Draft202012Validator(schema).iter_errors(value))
    if error is not None:
        raise ConfigError(f"{what}: {_place(error)}{_reason(error)}")


def _place(error: ValidationError) -> str:
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    return f"{path.lstrip('.')}: " if path else ""


def _reason(error: ValidationError) -> str:
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        return f"unknown key {unknown[0]!r}; there are: {', '.join(known)}"
    if error.validator == "required" and isinstance(error.instance, Mapping):
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{missing[0]} is missing"
    means = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    said = f"{error.instance!r} cannot be used" if error.validator == "not" else error.message
    return f"{said} ({means})" if means else str(said)
