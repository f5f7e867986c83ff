"""Defects in planning."""

from __future__ import annotations

from typing import Any

from tests.chaos.mutants import Mutant, instead


def _unchecked(_: Any) -> Any:
    return lambda _, plan: plan


async def _waits_for_ever(planning: Any, problem: Any) -> Any:
    return await planning._planner.plan(problem, planning._rng.getrandbits(32))


def _gives_up(original: Any) -> Any:
    async def plan_once(planning: Any) -> None:
        try:
            await original(planning)
        except Exception:
            await planning._loop.create_future()

    return plan_once


def _spoilt(original: Any) -> Any:
    class Spoilt(original):  # type: ignore[misc]
        """Neither bounded nor forgetful."""

        def dispatched(self, dispatch_ms: float, now_s: float) -> None:
            error_ms = dispatch_ms - self._mean_ms
            self._mean_ms += self._weight * error_ms
            self._deviation_ms += self._weight * (abs(error_ms) - self._deviation_ms)

        def dispatch_ms(self, now_s: float) -> float:
            return float(self._mean_ms + self._tail * self._deviation_ms)

    return Spoilt


MUTANTS = [
    Mutant("plans are adopted unchecked", "server.planning:check", _unchecked),
    Mutant(
        "a hung planner is waited for", "server.planning:Planning._ask", instead(_waits_for_ever)
    ),
    Mutant(
        "nobody is placed while there is no planner",
        "server.planning:Planning._plan_quickly",
        instead(lambda _: None),
    ),
    Mutant(
        "planning ends with its first failure", "server.planning:Planning._plan_once", _gives_up
    ),
    Mutant("one pause spoils the estimate for good", "server.worker_calls:Overhead", _spoilt),
]
