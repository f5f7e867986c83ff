"""Scheduling problems and plans as JSON, for people who schedule for systems of their own.

A problem: `{"gpus": G, "initial_dnns": [m, ...], "profile": {"input_px": [...], "frame_bytes":
[...], "accuracy": [...], "latency_ms": [[b1, b2, ...], ...]}, "clients": [{"fps": f, "slo_ms": s,
"bandwidth_kbps": k, "wire_ms": w}, ...], "overhead_ms": o, "response_bytes": r}`; `initial_dnns`,
`wire_ms`, `overhead_ms` and `response_bytes` may be left out. 1 kbit is 1000 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from jellyfish.errors import ConfigError, DataError
from jellyfish.profile import Profile
from jellyfish.scheduling.problem import Plan, Problem

ARRAYS = ("input_px", "frame_bytes", "accuracy", "latency_ms")
CLIENT = ("fps", "slo_ms", "bandwidth_kbps")
MOST_GPUS = 100_000


def problem_from_json(value: Any) -> Problem:
    """Return the problem that `value`, parsed JSON, describes.

    Raises:
        DataError: it is none; the text names the field and what is wrong with it.
    """
    needed, optional = ("gpus", "profile", "clients"), ("initial_dnns", "overhead_ms")
    fields = _fields(value, "", needed, (*optional, "response_bytes"))
    gpus = _whole(fields["gpus"], "gpus", MOST_GPUS)
    profile = _profile(fields["profile"])
    clients = [
        _client(each, f"clients[{i}]") for i, each in enumerate(_list(fields["clients"], "clients"))
    ]
    initial = _list(fields.get("initial_dnns") or [], "initial_dnns")
    if initial and len(initial) != gpus:
        raise DataError(f"initial_dnns: {len(initial)} DNNs for {gpus} GPUs")
    columns: dict[str, Any] = {key: [c[key] for c in clients] for key in (*CLIENT, "wire_ms")}
    return Problem(
        gpus=gpus,
        profile=profile,
        initial_dnns=[
            _whole(dnn, f"initial_dnns[{i}]", profile.dnns - 1) for i, dnn in enumerate(initial)
        ],
        overhead_ms=_number(fields.get("overhead_ms", 0), "overhead_ms"),
        response_bytes=_number(fields.get("response_bytes", 0), "response_bytes"),
        **columns,
    )


def plan_as_json(plan: Plan, *, bound: float | None, solve_ms: float) -> dict[str, Any]:
    """Return `plan` as a value ready for JSON.

    Args:
        plan: GPUs without work and clients without a GPU become null.
        bound: what no plan's accuracy exceeds that serves as many clients; None if not known.
        solve_ms: what solving took.
    """
    return {
        "gpus": [gpu and {"dnn": gpu.dnn, "batch": gpu.batch} for gpu in plan.gpus],
        "clients": list(plan.clients),
        "effectiveness": plan.effectiveness,
        "accuracy": plan.accuracy,
        "bound": bound,
        "solve_ms": solve_ms,
    }


def _profile(value: Any) -> Profile:
    fields = _fields(value, "profile", ARRAYS, ())
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        where = f"profile.{name}"
        arrays[name] = _list(fields[name], where, may_be_empty=False)
        if len(arrays[name]) != len(arrays["input_px"]):
            raise DataError(
                f"{where}: {len(arrays[name])} values, input_px has {len(arrays['input_px'])}"
            )
        if name != "latency_ms":
            arrays[name] = _numbers(arrays[name], where, positive=name != "accuracy")
    arrays["latency_ms"] = _latencies(arrays["latency_ms"])
    try:
        return Profile(**arrays)
    except ConfigError as error:
        raise DataError(str(error)) from None


def _latencies(rows: list[Any]) -> list[list[float]]:
    found = []
    for i, row in enumerate(rows):
        where = f"profile.latency_ms[{i}]"
        found.append(_numbers(_list(row, where, may_be_empty=False), where, positive=True))
        if len(found[-1]) != len(found[0]):
            raise DataError(f"{where}: {len(found[-1])} batch sizes, the first has {len(found[0])}")
    return found


def _client(value: Any, where: str) -> dict[str, float]:
    fields = {"wire_ms": 0, **_fields(value, where, CLIENT, ("wire_ms",))}
    return {key: _number(number, f"{where}.{key}") for key, number in fields.items()}


def _fields(
    value: Any, where: str, needed: tuple[str, ...], optional: tuple[str, ...]
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where or 'problem'}: want an object with {', '.join(needed)}")
    prefix = f"{where}." if where else ""
    for name in needed:
        if name not in value:
            raise DataError(f"{prefix}{name} is missing")
    for name in value:
        if name not in needed and name not in optional:
            raise DataError(f"{prefix}{name}: no such field; want {', '.join(needed + optional)}")
    return value


def _list(value: Any, where: str, *, may_be_empty: bool = True) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{where}: want a list")
    if not value and not may_be_empty:
        raise DataError(f"{where} is empty")
    return value


def _numbers(values: list[Any], where: str, *, positive: bool) -> list[float]:
    return [_number(value, f"{where}[{i}]", positive) for i, value in enumerate(values)]


def _number(value: Any, where: str, positive: bool = False) -> float:
    try:
        usable = not isinstance(value, bool | str) and isfinite(float(value)) and value >= 0
    except (TypeError, OverflowError):
        usable = False
    if not usable or (positive and value == 0):
        kind = "above 0" if positive else "not negative"
        raise DataError(f"{where}: want a number that is {kind}, not {value!r:.40}")
    return float(value)


def _whole(value: Any, where: str, most: int) -> int:
    number = _number(value, where)
    if number != int(number) or number > most:
        raise DataError(f"{where}: want a whole number up to {most}, not {value!r:.40}")
    return int(number)
