"""How many runs are done, and about how long the rest takes, from what earlier runs took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from experiment.cell import AROUND_S, complete
from experiment.grid import Config, Run, run_settings, span_s
from jellyfish.errors import DataError
from jellyfish.files.provenance import Provenance, read_provenance

_ENOUGH = 200  # recorded runs to learn from


def outlook(config: Config, runs: Iterable[Run], results: Path, cores: int) -> str:
    """Return a line that tells how many of `runs` are done and how long the others take.

    Measured runs take their streams' length, and what earlier runs took beyond it; simulated
    ones as long per frame as earlier ones did, on `cores` cores.
    """
    wanted = list(runs)
    left = [run for run in wanted if not complete(config, run, results)]
    text = f"Runs: {len(wanted) - len(left)} of {len(wanted)} done"
    if not left:
        return text
    records = _recorded(results)
    total, unknown = 0.0, 0
    for world in sorted({run.cell.world for run in left}):
        mine = [
            run_settings(config, run.cell, run.clip, run.repetition)
            for run in left
            if run.cell.world == world
        ]
        seconds = _seconds(world, mine, [r for r in records if r.world == world])
        if seconds is None:
            unknown += len(mine)
        else:
            total += seconds / (cores if world == "simulated" else 1)
    return f"{text}; {_told(len(left), unknown, total)}"


def _told(left: int, unknown: int, seconds: float) -> str:
    if unknown == left:
        return f"how long the other {left} take is not known: none like them has run here yet"
    more = f", and {unknown} like which none has run here yet" if unknown else ""
    return f"the other {left - unknown} take about {duration(seconds)}{more}"


def duration(seconds: float) -> str:
    """Return `seconds` as people say it: `40 s`, `12 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _seconds(world: str, left: list[dict[str, Any]], records: list[Provenance]) -> float | None:
    """Return how long runs with the settings `left` take one after another; None: nobody knows."""
    took = [(_took_s(r), r.settings) for r in records]
    if world == "measured":
        beyond = median([s - _streams_s(settings) for s, settings in took] or [AROUND_S])
        return sum(_streams_s(settings) + max(0.0, beyond) for settings in left)
    if not took:
        return None
    per_frame = median(s / max(1.0, _frames(settings)) for s, settings in took)
    return per_frame * sum(_frames(settings) for settings in left)


def _streams_s(settings: Mapping[str, Any]) -> float:
    return span_s(settings["client"], len(settings["clients"]))


def _frames(settings: Mapping[str, Any]) -> float:
    return float(settings["client"]["stream_s"] * sum(fps for _, fps in settings["clients"]))


def _took_s(made: Provenance) -> float:
    ended, started = (datetime.fromisoformat(text) for text in (made.ended, made.started))
    return (ended - started).total_seconds()


def _recorded(results: Path) -> list[Provenance]:
    """Return the provenance of runs that were done last, of whatever scenario."""
    files = sorted(
        (results / "runs").glob("*/provenance.json"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    return [made for path in files[:_ENOUGH] if (made := _provenance(path.parent)) is not None]


def _provenance(folder: Path) -> Provenance | None:
    try:
        return read_provenance(folder)
    except DataError:
        return None
