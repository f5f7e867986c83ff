"""What a scheduler is asked, what it answers, and the one judge of an answer (RTSS 2022, IV)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jellyfish.budget import latency_budget_ms
from jellyfish.errors import JellyfishError
from jellyfish.profile import FloatArray, Profile

Budget = int | Callable[[], bool] | None  # a solver's: iterations, or whether to go on
BATCHES_IN_BUDGET = 2  # a frame may wait for one batch, then comes its own


class InfeasiblePlan(JellyfishError):  # noqa: N818 - it says what it is
    """A plan breaks a rule of its problem; the text names the GPU or client and the rule."""


@dataclass(frozen=True)
class GpuPlan:
    """What one GPU does: it serves DNN `dnn` in batches of up to `batch` frames."""

    dnn: int
    batch: int


@dataclass(frozen=True)
class Plan:
    """Which DNN and batch size each GPU runs, and which GPU serves each client.

    Args:
        gpus: (G,) None where a GPU has nothing to do.
        clients: (C,) a GPU's index, or None where no GPU serves the client.
        effectiveness: share of servable clients that are mapped; 1 where none is servable.
        accuracy: frame-rate-weighted mean accuracy over servable clients, unmapped ones at 0.
    """

    gpus: tuple[GpuPlan | None, ...]
    clients: tuple[int | None, ...]
    effectiveness: float
    accuracy: float

    @property
    def dnns(self) -> tuple[int | None, ...]:
        """(G,) the DNN of each GPU."""
        return tuple(gpu.dnn if gpu else None for gpu in self.gpus)


@dataclass(frozen=True, eq=False, init=False)
class Problem:
    """C clients to be mapped to G GPUs, each of which runs one of the profile's M DNNs.

    Values of clients may be anything: one whose numbers make no sense has a budget of zero and is
    not servable.

    Args:
        gpus: number of GPUs, G.
        profile: what each DNN costs and earns.
        fps: (C,) frames per second.
        slo_ms: (C,) end-to-end SLO.
        bandwidth_kbps: (C,) uplink bandwidth, 1 kbit = 1000 bits.
        wire_ms: (C,) or scalar, wire latency one way.
        device_ms: (C,) or scalar, from a frame's capture to its sending.
        response_bytes: (C,) or scalar.
        overhead_ms: the server's own time per frame, outside its workers.
        initial_dnns: (G,) what each GPU runs now; empty where nothing runs yet.
        initial_gpus: (C,) the GPU that serves each client now, None for none; empty where none is
            known.

    Raises:
        ValueError: lengths differ, `initial_dnns` names a DNN that the profile lacks, or
            `initial_gpus` a GPU that is not there.
    """

    gpus: int
    profile: Profile
    fps: FloatArray
    slo_ms: FloatArray
    bandwidth_kbps: FloatArray
    wire_ms: FloatArray
    device_ms: FloatArray
    response_bytes: FloatArray
    overhead_ms: float
    initial_dnns: tuple[int, ...]
    initial_gpus: tuple[int | None, ...]

    def __init__(
        self,
        *,
        gpus: int,
        profile: Profile,
        fps: ArrayLike,
        slo_ms: ArrayLike,
        bandwidth_kbps: ArrayLike,
        wire_ms: ArrayLike = 0.0,
        device_ms: ArrayLike = 0.0,
        response_bytes: ArrayLike = 0.0,
        overhead_ms: float = 0.0,
        initial_dnns: Sequence[int] = (),
        initial_gpus: Sequence[int | None] = (),
    ) -> None:
        clients = np.size(fps)
        values = {
            "gpus": gpus,
            "profile": profile,
            "fps": _per_client(fps, "fps", clients),
            "slo_ms": _per_client(slo_ms, "slo_ms", clients),
            "bandwidth_kbps": _per_client(bandwidth_kbps, "bandwidth_kbps", clients),
            "wire_ms": _per_client(wire_ms, "wire_ms", clients),
            "device_ms": _per_client(device_ms, "device_ms", clients),
            "response_bytes": _per_client(response_bytes, "response_bytes", clients),
            "overhead_ms": float(overhead_ms),
            "initial_dnns": _checked_dnns(initial_dnns, gpus, profile.dnns),
            "initial_gpus": _checked_gpus(initial_gpus, clients, gpus),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def clients(self) -> int:
        """Number of clients, C."""
        return len(self.fps)

    @property
    def start_dnns(self) -> tuple[int, ...]:
        """(G,) what the GPUs run now; the smallest DNN where nothing runs yet."""
        return self.initial_dnns or (0,) * self.gpus

    @cached_property
    def budget_ms(self) -> FloatArray:
        """(C, M) ms that client i has left for DNN m, its queueing included."""
        return latency_budget_ms(
            frame_bytes=self.profile.frame_bytes,
            fps=self.fps,
            slo_ms=self.slo_ms,
            bandwidth_kbps=self.bandwidth_kbps,
            wire_ms=self.wire_ms,
            device_ms=self.device_ms,
            response_bytes=self.response_bytes,
            overhead_ms=self.overhead_ms,
        )

    @cached_property
    def largest_batch(self) -> NDArray[np.int64]:
        """(C, M) the largest batch that meets client i's deadline on DNN m; 0 for none."""
        counts = np.zeros(self.budget_ms.shape, np.min_scalar_type(self.profile.max_batch))
        for cost in BATCHES_IN_BUDGET * self.profile.latency_ms.T:  # (M,), batch by batch no less
            counts += self.budget_ms >= cost
        return counts.astype(np.int64)

    @cached_property
    def servable(self) -> NDArray[np.bool_]:
        """(C,) whether some GPU, all to itself, could serve the client."""
        fastest = self.profile.fastest
        row = np.arange(self.profile.dnns) * fastest.shape[1]
        reached = fastest.ravel()[row + self.largest_batch]  # (C, M)
        return np.asarray(reached.max(axis=1) > self.fps)

    def total_fps(self, clients: Sequence[int]) -> float:
        """Return the frames per second of `clients` together, rounded once."""
        return fsum(self.fps[np.asarray(clients, np.int64)].tolist())


def _per_client(values: ArrayLike, name: str, clients: int) -> FloatArray:
    array = np.asarray(values, np.float64)
    if array.shape not in {(), (clients,)}:
        raise ValueError(f"{name} has shape {array.shape}; want one number or ({clients},)")
    full = np.broadcast_to(array, (clients,)).copy()
    full.setflags(write=False)
    return full


def _checked_dnns(initial: Sequence[int], gpus: int, dnns: int) -> tuple[int, ...]:
    if gpus < 0 or (initial and len(initial) != gpus):
        raise ValueError(f"initial_dnns names {len(initial)} DNNs for {gpus} GPUs")
    for dnn in initial:
        if not 0 <= dnn < dnns:
            raise ValueError(f"initial_dnns names DNN {dnn}; the profile has {dnns}")
    return tuple(int(dnn) for dnn in initial)


def _checked_gpus(initial: Sequence[int | None], clients: int, gpus: int) -> tuple[int | None, ...]:
    if initial and len(initial) != clients:
        raise ValueError(f"initial_gpus names {len(initial)} GPUs for {clients} clients")
    for gpu in initial:
        if gpu is not None and not 0 <= gpu < gpus:
            raise ValueError(f"initial_gpus names GPU {gpu}; there are {gpus}")
    return tuple(initial)


def check(problem: Problem, plan: Plan) -> Plan:
    """Return `plan` with its effectiveness and accuracy worked out anew.

    Both count over `problem.servable`, whatever the solver took for servable, so that plans of
    different solvers compare.

    Raises:
        InfeasiblePlan: the plan breaks a rule; the text names the first.
    """
    for gpu, clients in enumerate(_members(problem, plan)):
        gpu_plan = plan.gpus[gpu]
        if gpu_plan is not None:
            _check_budgets(problem, gpu, gpu_plan, clients)
            _check_rate(problem, gpu, gpu_plan, clients)
    return Plan(plan.gpus, plan.clients, *_worth(problem, plan))


def check_form(problem: Problem, plan: Plan) -> Plan:
    """Return `plan` if it can be followed, whether or not it keeps deadlines and rates.

    Raises:
        InfeasiblePlan: it names what is not there; the text says what.
    """
    _members(problem, plan)
    return plan


def _members(problem: Problem, plan: Plan) -> list[list[int]]:
    """Return the clients of each GPU."""
    if (len(plan.gpus), len(plan.clients)) != (problem.gpus, problem.clients):
        raise InfeasiblePlan(
            f"a plan for {len(plan.gpus)} GPUs and {len(plan.clients)} clients; "
            f"the problem has {problem.gpus} and {problem.clients}"
        )
    for gpu, gpu_plan in enumerate(plan.gpus):
        if gpu_plan is not None:
            _check_range(problem.profile, gpu, gpu_plan)
    members: list[list[int]] = [[] for _ in plan.gpus]
    for client, mapped in enumerate(plan.clients):
        if mapped is not None:
            _check_mapped(plan, client, mapped)
            members[mapped].append(client)
    return members


def _check_range(profile: Profile, gpu: int, gpu_plan: GpuPlan) -> None:
    if not 0 <= gpu_plan.dnn < profile.dnns:
        raise InfeasiblePlan(f"GPU {gpu}: DNN {gpu_plan.dnn}; the profile has {profile.dnns}")
    if not 1 <= gpu_plan.batch <= profile.max_batch:
        raise InfeasiblePlan(f"GPU {gpu}: batch {gpu_plan.batch}; want 1 to {profile.max_batch}")


def _check_mapped(plan: Plan, client: int, gpu: int) -> None:
    if not 0 <= gpu < len(plan.gpus):
        raise InfeasiblePlan(f"client {client}: GPU {gpu}; there are {len(plan.gpus)}")
    if plan.gpus[gpu] is None:
        raise InfeasiblePlan(f"client {client}: GPU {gpu} runs nothing")


def _check_budgets(problem: Problem, gpu: int, gpu_plan: GpuPlan, clients: Sequence[int]) -> None:
    budgets = problem.budget_ms[clients, gpu_plan.dnn]
    cost = BATCHES_IN_BUDGET * problem.profile.latency_ms[gpu_plan.dnn, gpu_plan.batch - 1]
    for i in np.flatnonzero(budgets < cost).tolist():
        raise InfeasiblePlan(
            f"client {clients[i]}: budget {budgets[i]:.3f} ms on GPU {gpu}, "
            f"two batches take {cost:.3f} ms"
        )


def _check_rate(problem: Problem, gpu: int, gpu_plan: GpuPlan, clients: Sequence[int]) -> None:
    rate = problem.total_fps(clients)
    throughput = problem.profile.throughput[gpu_plan.dnn, gpu_plan.batch - 1]
    if rate >= throughput:
        raise InfeasiblePlan(
            f"GPU {gpu}: {rate:g} frames/s mapped, throughput {throughput:g} must exceed them"
        )


def _worth(problem: Problem, plan: Plan) -> tuple[float, float]:
    servable: list[int] = np.flatnonzero(problem.servable).tolist()
    if not servable:
        return 1.0, 0.0
    mapped = [i for i in servable if plan.clients[i] is not None]
    earned = (problem.fps[i] * _accuracy(problem, plan, i) for i in mapped)
    return len(mapped) / len(servable), fsum(earned) / problem.total_fps(servable)


def _accuracy(problem: Problem, plan: Plan, client: int) -> float:
    gpu = plan.clients[client]
    gpu_plan = None if gpu is None else plan.gpus[gpu]
    return 0.0 if gpu_plan is None else float(problem.profile.accuracy[gpu_plan.dnn])
