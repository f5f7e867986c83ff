"""When the scheduler runs, on what, what is done while it has no answer, and the record of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from jellyfish.errors import DeviceError, JellyfishError
from jellyfish.files.tables import PlanRow
from jellyfish.scheduling import quick
from jellyfish.scheduling.problem import Plan, Problem, check, check_form
from jellyfish.scheduling.solvers import SOLVERS
from server.clients import ClientHandle
from server.gpu import Gpu
from server.planner import Planner
from server.settings import Settings
from server.stalls import LoopStalls
from server.throttled_log import ThrottledLog

log = logging.getLogger(__name__)

OnPlan = Callable[[PlanRow], None]
Adopt = Callable[[Plan, list[ClientHandle], list[Gpu]], None]

QUICK_S = 0.1  # whoever has no GPU waits no longer for the scheduler before a quick plan is made
PROBE_S = 1.0  # between probes of a GPU whose slow hand-over may be why somebody has none


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

    While the planner has no answer, whoever has no GPU gets one by a quick plan. Every plan is
    checked before it is followed.

    Args:
        planner: the scheduler; closed here.
        rng: the source of its seeds.
        settings: profile, policy and config.
        stalls: of the loop.
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
        stalls: LoopStalls,
        clients: Mapping[int, ClientHandle],
        gpus: Sequence[Gpu],
        adopt: Adopt,
        on_plan: OnPlan | None = None,
    ) -> None:
        self._planner = planner
        self._rng = rng
        self._settings = settings
        self._stalls = stalls
        self._clients = clients
        self._gpus = gpus
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._log = ThrottledLog("planning")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._quick_timer: asyncio.TimerHandle | None = None
        self._quick_plans = 0
        self._on_plan = on_plan
        self.made = 0

    async def warm(self) -> None:
        """Wait until the planner can plan.

        Raises:
            JellyfishError: it does not work.
        """
        await self._planner.ready()

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
            if not self._able():
                continue
            planned_s = self._loop.time()
            try:
                await self._plan_once()
            except JellyfishError as error:
                self._log.tell(f"no new plan, the last one stays: {error}")
                self._plan_quickly()
            except Exception:  # planning must go on for everybody, whatever it stumbled over
                log.exception("no new plan, the last one stays")
                self._plan_quickly()

    async def _due(self, planned_s: float) -> None:
        """Wait until the interval has passed, or the gap if something has changed."""
        config, policy = self._settings.config, self._settings.policy
        due_s = planned_s + config.plan_interval_s if self._able() else None
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_s):
                await self._changed.wait()
        gap_s = min(policy.replan_gap_s, config.plan_interval_s)
        pause_s = planned_s + gap_s - self._loop.time()
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def _able(self) -> bool:
        return bool(self._clients) and any(gpu.alive for gpu in self._gpus)

    # --- with the scheduler

    async def _plan_once(self) -> None:
        posed = self._pose()
        before = self._quick_plans
        self._quick_timer = self._loop.call_later(QUICK_S, self._while_waiting)
        try:
            plan, solve_ms = await self._ask(posed.problem)
        finally:
            self._quick_timer.cancel()
        if self._quick_plans > before:
            self._changed.set()  # what it was made for is no more: ask again
            return
        feasible = self._settings.policy.solver in SOLVERS
        self._follow(posed, plan, self._settings.policy.solver, solve_ms, feasible=feasible)
        if any(client.gpu is None for client in self._clients.values()):
            self._probe_slow_gpus()

    async def _ask(self, problem: Problem) -> tuple[Plan, float]:
        timeout_s = self._settings.config.plan_timeout_s
        try:
            async with self._stalls.timeout(timeout_s):
                return await self._planner.plan(problem, self._rng.getrandbits(32))
        except TimeoutError:
            why = f"had no plan within {timeout_s:g} s"
            self._planner.give_up(why)
            raise DeviceError(f"the planner {why}") from None

    def _pose(self) -> _Posed:
        time_s = self._loop.time()
        clients = [c for c in self._clients.values() if not c.quiet(time_s)]
        gpus = [gpu for gpu in self._gpus if gpu.alive]
        # A plan may place anybody anywhere, so it reckons with the slowest hand-over.
        overhead_ms = max((gpu.overhead.ms(time_s) for gpu in gpus), default=0.0)
        problem = problem_of(clients, gpus, self._settings, overhead_ms)
        return _Posed(problem, clients, gpus, time_s)

    def _follow(
        self, posed: _Posed, plan: Plan, solver: str, solve_ms: float, *, feasible: bool
    ) -> None:
        """Adopt a plan and keep a record of it; one that breaks a rule changes nothing.

        Raises:
            InfeasiblePlan: it breaks a rule of the problem.
            DeviceError: it is no plan at all.
        """
        try:
            checked = (check if feasible else check_form)(posed.problem, plan)
            row = plan_row(
                posed.problem,
                checked,
                clients=posed.clients,
                gpus=posed.gpus,
                all_gpus=len(self._gpus),
                time_s=posed.time_s,
                solver=solver,
                solve_ms=solve_ms,
            )
        except JellyfishError:
            raise
        except Exception as error:
            raise DeviceError(f"the planner's answer is no plan: {error!r}") from error
        self.made += 1
        if self._on_plan is not None:
            self._on_plan(row)
        self._adopt(checked, posed.clients, posed.gpus)

    def _probe_slow_gpus(self) -> None:
        now_s = self._loop.time()
        for gpu in self._gpus:
            if gpu.alive and gpu.idle_s > PROBE_S and gpu.overhead.raised(now_s):
                gpu.probe()

    # --- without it

    def _while_waiting(self) -> None:
        self._quick_timer = self._loop.call_later(QUICK_S, self._while_waiting)
        self._plan_quickly()

    def _plan_quickly(self) -> None:
        """Give those a GPU who have none, if there is room."""
        if not self._able() or all(client.gpu is not None for client in self._clients.values()):
            return
        try:
            posed = self._pose()
            served = sum(client.gpu is not None for client in posed.clients)
            plan = quick.solve(posed.problem)
            if sum(gpu is not None for gpu in plan.clients) > served:
                self._follow(posed, plan, "quick", 0.0, feasible=True)
                self._quick_plans += 1
        except Exception:  # as above: this is for those who have no GPU, not against the others
            log.exception("no quick plan")


@dataclass(frozen=True, slots=True)
class _Posed:
    """A problem, and whom and what its numbers stand for."""

    problem: Problem
    clients: list[ClientHandle]
    gpus: list[Gpu]
    time_s: float
