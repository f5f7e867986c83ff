"""Plays one scenario and says what was violated."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field

from experiment import virtual_time
from jellyfish.scheduling import solvers
from tests.chaos import baseline, invariants
from tests.chaos.faults import Scenario
from tests.chaos.logs import simulated_clock, simulated_log
from tests.chaos.strikes import strike
from tests.chaos.world import Streamed, Struck, World, simulated_grpc

MOST_S = 60.0  # beyond the clients' time, for everything to end
SETTLE_S = 1.0  # after which nothing may be left


@dataclass
class Verdict:
    """What came of a scenario."""

    scenario: Scenario
    violations: list[str]
    struck: list[Struck] = field(default_factory=list)
    recovery_s: float = float("nan")
    virtual_s: float = 0.0


async def _play(scenario: Scenario) -> World:
    world = World(scenario)
    world.struck = [Struck(fault) for fault in scenario.faults]
    world.streamed = [Streamed([]) for _ in scenario.clients]
    with simulated_grpc(world), simulated_log(world), simulated_clock(world):
        await world.start_server()
        work = [strike(world, struck) for struck in world.struck]
        work += [world.stream(i) for i in range(len(scenario.clients))]
        tasks = [world.loop.create_task(one, name=f"work-{i}") for i, one in enumerate(work)]
        _, pending = await asyncio.wait(tasks, timeout=scenario.length_s + MOST_S)
        for task in pending:
            world.problems.append(f"never ended: {task!r}")
            task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]  # a fault of the simulation
        async with world.lock:
            await world.stop_server()
        await asyncio.sleep(SETTLE_S)
        world.left = invariants.left_over(world)
    return world


def play(scenario: Scenario) -> World:
    """Play a scenario from start to end, in virtual time."""
    solvers.warm("jellyfish")
    gc.disable()
    try:
        return virtual_time.run(_play(scenario), scenario.seed)
    finally:
        gc.enable()


def judge(scenario: Scenario) -> Verdict:
    """Play a scenario and check all that must hold.

    Violations are texts that begin with the name of the invariant.
    """
    try:
        world = play(scenario)
    except (virtual_time.DeadlockError, virtual_time.LivelockError, TimeoutError) as error:
        return Verdict(scenario, [f"ends: {error!r:.500}"])
    verdict = Verdict(scenario, [], world.struck, virtual_s=scenario.length_s)
    for check in invariants.CHECKS:
        verdict.violations += check(world)
    broken, verdict.recovery_s = baseline.recovery(world, play)
    verdict.violations += broken
    verdict.violations += baseline.isolation(world, play)
    return verdict
