"""What disturbed a measured run: CPU time that other programs took, or other machines.

Both are shares of all cores' time while clients streamed, of the host that fared worst. A run
beyond the config's `measuring.disturbed` counts as disturbed: the report and figures tell, charges
are not recorded from it, and it is measured again as often as `measuring.tries` allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiment.cpu_watch import FILE
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json, write_json

TOLD = "disturbance.json"


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Shares of all cores' time.

    Args:
        others: taken by programs that are no part of the run, on average.
        stolen: taken by the hypervisor for other machines, on average.
        worst: the most that both took together in any second.
    """

    others: float
    stolen: float
    worst: float

    @property
    def share(self) -> float:
        """Both together, on average."""
        return self.others + self.stolen

    def __str__(self) -> str:
        return (
            f"{self.others:.1%} of the CPU time taken by other programs, {self.stolen:.1%} stolen"
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What a run's directory tells.

    Args:
        of: what disturbed it; None where nobody watched.
        disturbed: whether that was more than allowed.
        discarded: what disturbed the tries before it.
    """

    of: Disturbance | None = None
    disturbed: bool = False
    discarded: tuple[Disturbance, ...] = ()


class Tries:
    """Says whether what was measured is to be measured again, and what to tell of it.

    Args:
        measuring: the config's section of this name.
    """

    def __init__(self, measuring: Mapping[str, Any]) -> None:
        self._limit, self._left = float(measuring["disturbed"]), int(measuring["tries"])
        self._discarded: tuple[Disturbance, ...] = ()
        self.told = Told()  # of the last try

    def again(self, found: Disturbance | None) -> bool:
        """Take in what disturbed a try; return whether there is to be another."""
        self.told = Told(found, found is not None and found.share > self._limit, self._discarded)
        self._left -= 1
        if found is None or not self.told.disturbed or not self._left:
            return False
        self._discarded += (found,)
        return True


def watched(folder: Path) -> Disturbance | None:
    """Return what disturbed the run in `folder`; None where no host has a record of it.

    Raises:
        DataError: a record cannot be used.
    """
    paths = [folder / FILE, *folder.glob(f"hosts/*/{FILE}")]
    found = [read_json(path) for path in paths if path.is_file()]
    try:
        machines = {host["machine"] for host in found}
        each = [of_machine([h for h in found if h["machine"] == one]) for one in machines]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: a {FILE} cannot be used: {error!r}") from error
    known = [one for one in each if one is not None]
    return max(known, key=lambda one: one.share, default=None)


def of_machine(records: Iterable[Mapping[str, Any]]) -> Disturbance | None:
    """Return what disturbed hosts that are one machine, where each sees the others as others.

    None where a record is empty.

    Raises:
        KeyError, TypeError, ValueError: a record lacks a column, or they differ in length.
    """
    tables = [
        np.array([each[name] for name in ("run", "busy", "stolen")], np.float64) for each in records
    ]
    # They begin together, more or less; their clocks may differ all the same.
    seconds = min(table.shape[1] for table in tables)
    if not seconds:
        return None
    together = np.array([table[:, :seconds] for table in tables])
    run, (busy, stolen) = together[:, 0].sum(axis=0), together[:, 1:].mean(axis=0)
    others = busy - run
    return Disturbance(
        others=max(0.0, float(others.mean())),
        stolen=float(stolen.mean()),
        worst=float((others.clip(min=0) + stolen).max()),
    )


def record(folder: Path, found: Told) -> None:
    """Write into a run's directory what disturbed it."""
    write_json(folder / TOLD, asdict(found))


def told(folder: Path) -> Told:
    """Return what a run's directory tells; nothing where it was not watched, or is older.

    Raises:
        DataError: the file cannot be used.
    """
    path = folder / TOLD
    return _told(read_json(path), path) if path.is_file() else Told()


def rounds_told(path: Path) -> list[Told]:
    """Return what the latency.json of a profile tells of its rounds.

    Raises:
        DataError: the file is missing or cannot be used.
    """
    try:
        return [_told(each, path) for each in read_json(path)["rounds"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be used: {error!r}") from error


def _told(found: Mapping[str, Any], path: Path) -> Told:
    try:
        return Told(
            of=Disturbance(**found["of"]) if found["of"] else None,
            disturbed=bool(found["disturbed"]),
            discarded=tuple(Disturbance(**one) for one in found["discarded"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be used: {error!r}") from error
