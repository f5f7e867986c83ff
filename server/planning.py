"""When the scheduler runs, on what, and the record of what it said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random

from jellyfish.errors import JellyfishError
from jellyfish.files.tables import PlanRow
from jellyfish.scheduling.problem import Plan, Problem
from server.clients import ClientHandle
from server.gpu import Gpu
from server.planner import Planner
from server.settings import Settings

log = logging.getLogger(__name__)

OnPlan = Callable[[PlanRow], None]
Adopt = Callable[[Plan, list[ClientHandle], list[Gpu]], None]

MARGIN_MS = 2.0  # of the server's overhead, beside dispatch there and back


class Overhead:
    """The server's own time per frame: dispatch there and back as a running mean, and a margin.

    Args:
        weight: of the newest value.
        tail: mean deviations added to the mean: what is late now and then is late then.
    """

    def __init__(self, weight: float, tail: float = 0.0) -> None:
        self._weight, self._tail = weight, tail
        self._mean_ms = 2.0  # both ways; the published start value is 1 ms each
        self._deviation_ms = 0.0

    def dispatched(self, dispatch_ms: float) -> None:
        """Take in the dispatch time of one batch."""
        error_ms = dispatch_ms - self._mean_ms
        self._mean_ms += self._weight * error_ms
        self._deviation_ms += self._weight * (abs(error_ms) - self._deviation_ms)

    @property
    def dispatch_ms(self) -> float:
        """Dispatch there and back."""
        return self._mean_ms + self._tail * self._deviation_ms

    @property
    def ms(self) -> float:
        """What the scheduler reckons with."""
        return self.dispatch_ms + MARGIN_MS


def problem_of(
    clients: Sequence[ClientHandle], gpus: Sequence[Gpu], settings: Settings, overhead_ms: float
) -> Problem:
    """Return the scheduling problem that `clients` and the live `gpus` pose now."""
    running = [gpu.last_dnn for gpu in gpus]
    positions = {gpu.index: position for position, gpu in enumerate(gpus)}
    return Problem(
        gpus=len(gpus),
        profile=settings.reckoned,
        fps=[c.fps for c in clients],
        slo_ms=[settings.slo_share * c.slo_ms for c in clients],
        bandwidth_kbps=[c.bandwidth.kbps for c in clients],
        wire_ms=settings.config.wire_ms,
        device_ms=[c.device_ms for c in clients],
        response_bytes=[c.response_bytes for c in clients],
        overhead_ms=overhead_ms,
        initial_dnns=running,
        initial_gpus=[None if c.gpu is None else positions.get(c.gpu.index) for c in clients],
    )


def plan_row(
    problem: Problem,
    plan: Plan,
    *,
    clients: Sequence[ClientHandle],
    gpus: Sequence[Gpu],
    all_gpus: int,
    time_s: float,
    solver: str,
    solve_ms: float,
) -> PlanRow:
    """Return what a scheduler run is recorded as; dead GPUs appear as idle ones."""
    dnns_px, batches = [0] * all_gpus, [0] * all_gpus
    for gpu, gpu_plan in zip(gpus, plan.gpus, strict=True):
        if gpu_plan is not None:
            dnns_px[gpu.index] = int(problem.profile.input_px[gpu_plan.dnn])
            batches[gpu.index] = gpu_plan.batch
    return PlanRow(
        time_s=time_s,
        solver=solver,
        dnns_px=dnns_px,
        batches=batches,
        clients=[c.number for c in clients],
        mapping=[-1 if g is None else gpus[g].index for g in plan.clients],
        bandwidth_kbps=problem.bandwidth_kbps.tolist(),
        effectiveness=plan.effectiveness,
        accuracy=plan.accuracy,
        solve_ms=solve_ms,
    )


class Planning:
    """Asks the planner every interval and, after a while, when something has changed.

    Args:
        planner: the scheduler; closed here.
        rng: the source of its seeds.
        settings: profile, policy and config.
        overhead: the server's own time per frame.
        clients: who is there now, by number.
        gpus: all GPUs.
        adopt: follows a plan, told the clients and GPUs that it was made for.
        on_plan: told each scheduler run, for the record.

    Attributes:
        made: how many plans there were.
    """

    def __init__(
        self,
        planner: Planner,
        rng: Random,
        settings: Settings,
        *,
        overhead: Overhead,
        clients: Mapping[int, ClientHandle],
        gpus: Sequence[Gpu],
        adopt: Adopt,
        on_plan: OnPlan | None = None,
    ) -> None:
        self._planner = planner
        self._rng = rng
        self._settings = settings
        self._overhead = overhead
        self._clients = clients
        self._gpus = gpus
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._on_plan = on_plan
        self.made = 0

    async def warm(self) -> None:
        """Have the planner solve an empty problem, so that the first real one finds it ready.

        Raises:
            JellyfishError: the planner does not work.
        """
        await self._planner.plan(problem_of([], self._gpus, self._settings, 0.0), 0)

    def start(self) -> None:
        """Plan from now on, for ever."""
        self._task = self._loop.create_task(self._plan_forever(), name="planning")

    def soon(self) -> None:
        """Ask for a plan as soon as the policy lets: something has changed."""
        self._changed.set()

    async def stop(self) -> None:
        """Plan no more, and close the planner."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._planner.close()

    async def _plan_forever(self) -> None:
        planned_s = float("-inf")
        while True:
            await self._due(planned_s)
            self._changed.clear()
            if not self._clients or not any(gpu.alive for gpu in self._gpus):
                continue
            planned_s = self._loop.time()
            try:
                await self._plan_once()
            except JellyfishError as error:
                log.error("no new plan, the last one stays: %s", error)
            except Exception:  # planning must go on for everybody, whatever it stumbled over
                log.exception("no new plan, the last one stays")

    async def _due(self, planned_s: float) -> None:
        """Wait until the interval has passed, or the gap if something has changed."""
        config, policy = self._settings.config, self._settings.policy
        able = self._clients and any(gpu.alive for gpu in self._gpus)
        due_s = planned_s + config.plan_interval_s if able else None
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_s):
                await self._changed.wait()
        gap_s = min(policy.replan_gap_s, config.plan_interval_s)
        pause_s = planned_s + gap_s - self._loop.time()
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    async def _plan_once(self) -> None:
        clients = list(self._clients.values())
        gpus = [gpu for gpu in self._gpus if gpu.alive]
        time_s = self._loop.time()
        problem = problem_of(clients, gpus, self._settings, self._overhead.ms)
        plan, solve_ms = await self._planner.plan(problem, self._rng.getrandbits(32))
        row = plan_row(
            problem,
            plan,
            clients=clients,
            gpus=gpus,
            all_gpus=len(self._gpus),
            time_s=time_s,
            solver=self._settings.policy.solver,
            solve_ms=solve_ms,
        )
        self.made += 1
        if self._on_plan is not None:
            self._on_plan(row)
        self._adopt(plan, clients, gpus)
