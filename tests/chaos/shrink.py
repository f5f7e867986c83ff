"""Fewer faults that still fail: delta debugging (Zeller and Hildebrandt, TSE 2002) over faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from jellyfish.files.atomic import write_json
from tests.chaos.faults import Scenario
from tests.chaos.run import Verdict, judge

T = TypeVar("T")

CORPUS = Path(__file__).parent / "corpus"


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of `items` that still fails, and of which no single one can be left out."""
    kept, parts = list(items), 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        chunks = [kept[i : i + size] for i in range(0, len(kept), size)]
        rests = ([*chain(*chunks[:i], *chunks[i + 1 :])] for i in range(len(chunks)))
        smaller = next((rest for rest in rests if fails(rest)), None)
        if smaller is not None:
            kept, parts = smaller, max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts = min(len(kept), 2 * parts)
    return kept


def names(violations: Sequence[str]) -> set[str]:
    """Return which invariants are violated."""
    return {text.partition(":")[0] for text in violations}


def shrink(verdict: Verdict) -> Verdict:
    """Return the verdict on the fewest faults found that violate one of the same invariants."""
    want = names(verdict.violations)
    found = verdict

    def fails(faults: Sequence[object]) -> bool:
        nonlocal found
        tried = judge(verdict.scenario.with_faults(faults))  # type: ignore[arg-type]
        if not names(tried.violations) & want:
            return False
        found = tried
        return True

    ddmin(verdict.scenario.faults, fails)
    return found


def keep(verdict: Verdict, folder: Path = CORPUS, mutant: str = "") -> Path:
    """Write a failing scenario to the corpus: what it violated, and with which mutant, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = "-".join(sorted({fault.kind.replace(" ", "_") for fault in verdict.scenario.faults}))
    name = mutant.replace(" ", "_") or kinds or "nothing"
    path = folder / f"{name}-{verdict.scenario.seed}.json"
    head = {"mutant": mutant} if mutant else {}
    write_json(path, {**head, "violated": verdict.violations[:5], **verdict.scenario.to_json()})
    return path


def read(path: Path) -> Scenario:
    """Return the scenario of a corpus file."""
    value = json.loads(path.read_text())
    for key in ("violated", "mutant"):
        value.pop(key, None)
    return Scenario.from_json(value)


def mutant_of(path: Path) -> str:
    """Return the mutant that a corpus file's scenario finds; empty for a defect that there was."""
    return str(json.loads(path.read_text()).get("mutant", ""))
