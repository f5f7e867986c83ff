"""Bandwidth traces from a config: step by step, from a seeded model, or from a file.

Six formats of a file (text; blank lines and what follows a # are passed over, but for csv):

- native: one rate in Mbit/s a line, each for `step_s` (1 s)
- mahimahi: one time in ms a line, at which the link carries one packet of 1500 bytes
- seconds: a time in s and the rate in Mbit/s from then on; a gap is refused
- ghent, riiser: six columns, the fifth bytes, the sixth the ms in which they came (4G/LTE logs of
  Ghent University, 3G logs of Riiser et al.)
- csv: with a header; `column` holds rates in `unit`, one a row, each for `step_s` (1 s)

Logs whose lines are not evenly spaced are averaged over steps of `step_s` (1 s).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jellyfish.errors import ConfigError
from jellyfish.trace import Trace, from_rates
from jellyfish.trace_models import STEP_S, trace_model

PACKET_BITS = 1500 * 8
GAP = 10  # times the usual distance between two lines
UNITS = {  # Mbit/s in one of each
    "Mbps": 1.0,
    "kbps": 1e-3,
    "bps": 1e-6,
    "Mbit/s": 1.0,
    "kbit/s": 1e-3,
    "bit/s": 1e-6,
    "MB/s": 8.0,
    "kB/s": 8e-3,
    "B/s": 8e-6,
}


def trace_from_config(name: str, spec: Mapping[str, Any], root: Path) -> Trace | None:
    """Return the trace that `spec` (a value under `traces` of the config) describes.

    Args:
        name: what the config calls it.
        spec: kind `none` (returns None: no shaping), `steps` (mbps, step_s), `generated` (model,
            seconds, seed) or `file` (path, format, and where they apply step_s, column, unit).
        root: what a relative path starts from.

    Raises:
        ConfigError: a value cannot be used; the text names the trace, or the file and line.
    """
    kind = spec.get("kind")
    if kind == "none":
        return None
    if kind == "steps":
        return from_rates(name, spec["mbps"], spec["step_s"])
    if kind == "generated":
        return from_rates(
            name, trace_model(spec["model"]).rates(spec["seconds"], spec["seed"]), STEP_S
        )
    if kind == "file":
        return _from_file(name, spec, root / spec["path"])
    raise ConfigError(f"trace {name}: kind is {kind!r}; there are: none, steps, generated, file")


class _Line(NamedTuple):
    """A line's words, and where it stands."""

    where: str
    words: list[str]

    def number(self, column: int) -> float:
        """Return the number in that column."""
        return _number(self.where, self.words[column])


def _from_file(name: str, spec: Mapping[str, Any], path: Path) -> Trace:
    form, step_s = spec["format"], float(spec.get("step_s", 1.0))
    if form not in _FORMATS:
        raise ConfigError(f"trace {name}: no format {form!r}; there are: {', '.join(_FORMATS)}")
    if not (isfinite(step_s) and step_s > 0):
        raise ConfigError(f"trace {name}: step_s must be positive, not {step_s}")
    try:
        rates = _FORMATS[form](path, spec, step_s)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {name}: cannot read {path}: {error}") from error
    if not rates:
        raise ConfigError(f"trace {name}: {path} holds no rates")
    return from_rates(name, rates, step_s)


def _native(path: Path, spec: Mapping[str, Any], step_s: float) -> list[float]:
    return [line.number(0) for line in _lines(path, 1)]


def _csv(path: Path, spec: Mapping[str, Any], step_s: float) -> list[float]:
    column, unit = spec.get("column"), spec.get("unit", "Mbps")
    if unit not in UNITS:
        raise ConfigError(f"{path}: no unit {unit!r}; there are: {', '.join(UNITS)}")
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if column not in (rows.fieldnames or ()):
            known = ", ".join(rows.fieldnames or ())
            raise ConfigError(f"{path}: no column {column!r}; there are: {known}")
        return [UNITS[unit] * _number(f"{path}:{rows.line_num}", row[column]) for row in rows]


def _mahimahi(path: Path, spec: Mapping[str, Any], step_s: float) -> list[float]:
    times, bits = [0.0], [0.0]
    for line in _lines(path, 1):
        time_s = line.number(0) / 1000
        if time_s < times[-1]:
            _refuse(line.where, "times must not fall")
        times.append(time_s)
        bits.append(bits[-1] + PACKET_BITS)
    return _averages(times, bits, step_s)


def _seconds(path: Path, spec: Mapping[str, Any], step_s: float) -> list[float]:
    lines = list(_lines(path, 2))
    if not lines:
        return []
    begins = [line.number(0) for line in lines]
    # The last rate holds for as long as the one before it.
    last_s = begins[-1] - begins[-2] if len(begins) > 1 else step_s
    usual_s = median(b - a for a, b in pairwise(begins)) if len(begins) > 1 else step_s
    times, bits = [0.0], [0.0]
    for line, begin, end in zip(lines, begins, [*begins[1:], begins[-1] + last_s], strict=True):
        if end <= begin:
            _refuse(line.where, "the next line's time must be later")
        if end - begin > GAP * usual_s > 0:
            _refuse(line.where, f"a gap: {end - begin:g} s to the next line, usual are {usual_s:g}")
        times.append(end - begins[0])
        bits.append(bits[-1] + line.number(1) * 1e6 * (end - begin))
    return _averages(times, bits, step_s)


def _log(path: Path, spec: Mapping[str, Any], step_s: float) -> list[float]:
    times, bits = [0.0], [0.0]
    for line in _lines(path, 6):
        times.append(times[-1] + line.number(5) / 1000)
        bits.append(bits[-1] + line.number(4) * 8)
    return _averages(times, bits, step_s)


_FORMATS: dict[str, Callable[[Path, Mapping[str, Any], float], list[float]]] = {
    "native": _native,
    "mahimahi": _mahimahi,
    "seconds": _seconds,
    "ghent": _log,
    "riiser": _log,
    "csv": _csv,
}


def _averages(times_s: list[float], bits: list[float], step_s: float) -> list[float]:
    """Return the mean Mbit/s of each step, given the bits carried until each of `times_s`."""
    length = times_s[-1]
    if length <= 0:
        return []
    edges = np.append(np.arange(0, length - 1e-9 * step_s, step_s), length)
    carried = np.diff(np.interp(edges, times_s, bits))
    rates: list[float] = (carried / np.diff(edges) / 1e6).tolist()
    return rates


def _lines(path: Path, columns: int) -> Iterator[_Line]:
    """Yield the lines that hold anything, `columns` words each."""
    with path.open() as file:
        for number, text in enumerate(file, start=1):
            words = text.partition("#")[0].split()
            if not words:
                continue
            line = _Line(f"{path}:{number}", words)
            if len(words) != columns:
                _refuse(line.where, f"{len(words)} columns; want {columns}")
            yield line


def _number(where: str, word: str | None) -> float:
    try:
        value = float(word or "")
    except ValueError:
        _refuse(where, f"{word!r} is no number")
    if not (isfinite(value) and value >= 0):
        _refuse(where, f"{word}: want a finite number, 0 or more")
    return value


def _refuse(where: str, why: str) -> NoReturn:
    raise ConfigError(f"{where}: {why}")
