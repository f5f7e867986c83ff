"""Engine, sessions and links together in virtual time."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.session import expected_ticks
from experiment.link import FRAME_HEADER_BYTES, LinkConfig, Uplink
from experiment.virtual_serving import Scene, SceneClient, Served, serve
from jellyfish.charges import charge
from jellyfish.emulation import LatencyModel
from jellyfish.errors import DataError, RejectedError
from jellyfish.policy import POLICIES
from jellyfish.records import Outcome
from jellyfish.trace import Trace, constant
from tests.kernels import KEPT
from tests.simulated import INPUT_PX, SYNTHETIC, clip, emulation, outcomes, scene

NARROW = Trace(name="narrow", mbps=(6, 1, 0, 3, 8), step_s=0.7)


def fingerprint(served: Served) -> str:
    text = repr((served.rows, served.plans, served.summary))
    text += repr([sorted(d) for d in served.detections])
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", POLICIES)
def test_every_tick_is_one_row_under_every_policy(name: str) -> None:
    played = scene(3, policy_name=name, trace=NARROW, workers=1, stream_s=6)
    served = serve(played)
    for rows in served.rows:
        assert [row.frame for row in rows] == list(range(expected_ticks(6, 15)))
    assert sum(outcomes(served.rows).values()) == 3 * 90
    counted = served.summary["clients"]
    assert sum(client["received"] for client in counted.values()) <= 3 * 90
    assert outcomes(served.rows).get("ok", 0) > 0


def test_a_quiet_scene_serves_every_frame_in_time() -> None:
    served = serve(scene(2, trace=constant("wide", 100)))
    assert outcomes(served.rows) == {"ok": 300}
    assert max(row.e2e_ms for row in served.rows[0]) < 100
    assert {row.bandwidth_true_kbps for row in served.rows[0]} == {100_000}
    assert served.detections[0].keys() == set(range(150))


def test_a_row_s_times_add_up() -> None:
    played = scene(1, trace=constant("even", 8), link=LinkConfig(delay_ms=3))
    for row in serve(played).rows[0]:
        assert row.sent_s == pytest.approx(row.capture_s + 0.002)
        up_ms = (row.bytes_up + FRAME_HEADER_BYTES) * 8 / 8e6 * 1000 + 3
        assert (row.acked_s - row.sent_s) * 1000 >= up_ms + 3
        spent = row.wait_ms + row.execute_ms + row.dispatch_ms
        assert row.server_ms == pytest.approx(spent)
        assert row.e2e_ms == pytest.approx(row.send_ms + 2)
        assert row.send_ms >= up_ms + row.server_ms + 3


def test_the_answers_of_a_batch_go_out_one_after_another() -> None:
    link = LinkConfig(answer_ms=charge(1), downlink_mbps=10_000)
    played = scene(3, trace=constant("wide", 100), workers=1, link=link)
    served = serve(replace(played, server_ms=0.0))
    on_its_way_ms = defaultdict(list)
    for row in (row for rows in served.rows for row in rows if row.outcome is Outcome.OK):
        arrived_s = row.sent_s + (row.bytes_up + FRAME_HEADER_BYTES) * 8 / 100e6
        answered_s = arrived_s + row.server_ms / 1000  # an acknowledgement may wait for an answer
        on_its_way_ms[round(answered_s, 4)].append((row.received_s - answered_s) * 1000)
    assert max(map(len, on_its_way_ms.values())) > 1
    for found in on_its_way_ms.values():
        assert sorted(found) == pytest.approx([k + 1 for k in range(len(found))], abs=0.1)


BODY = """
from tests.unit.test_simulation import NARROW, fingerprint
from tests.simulated import scene
from experiment.virtual_serving import serve
for name in ("paper", "jellyfish"):
    print(fingerprint(serve(scene(3, trace=NARROW, fps=25, stream_s=5, policy_name=name))))
"""


def test_the_same_bits_in_every_process(root: Path) -> None:
    seen = set()
    for seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", BODY],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", **KEPT},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    (said,) = seen
    assert len(set(said.split())) == 2


def test_another_seed_is_another_run() -> None:
    played = scene(3, trace=NARROW)
    assert fingerprint(serve(played)) == fingerprint(serve(played))
    assert fingerprint(serve(played)) != fingerprint(serve(replace(played, seed=2)))


CLOCKS = """
import time
armed = False

def guarded(name):
    clock = getattr(time, name)
    def read(*args):
        if armed:
            raise AssertionError(f"a simulation called time.{name}")
        return clock(*args)
    setattr(time, name, read)

names = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
for name in (*names, *(name + "_ns" for name in names), "sleep", "gmtime", "localtime"):
    guarded(name)  # before any import: nobody holds the clock itself

from experiment.virtual_serving import serve
from tests.simulated import scene

for name in {names}:
    played = scene(2, policy_name=name, stream_s=2)
    serve(played)  # imports and compiles what is needed
    armed = True
    print(sum(map(len, serve(played).rows)))
    armed = False
armed = True
try:
    time.monotonic()
except AssertionError:
    print("guarded")
"""


def test_no_one_reads_the_wall_clock(root: Path) -> None:
    command = [sys.executable, "-c", CLOCKS.replace("{names}", repr(tuple(POLICIES)))]
    env = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", **KEPT}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["60"] * len(POLICIES) + ["guarded"]


def test_memory_stays_flat_over_runs() -> None:
    played = scene(4, trace=NARROW, fps=25, stream_s=4)
    serve(played)
    sizes = []
    tracemalloc.start()
    try:
        for _ in range(4):
            frames = sum(map(len, serve(played).rows))
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    (first, _), (last, most) = sizes[0], sizes[-1]
    assert frames == 400
    assert last - first < 0.2 * most  # three runs more: of what each takes, next to nothing stays


RATES = st.lists(st.floats(0, 60), min_size=1, max_size=8).filter(lambda rates: max(rates) > 0.5)
TRACES = st.builds(
    lambda rates, step_s: Trace(name="any", mbps=tuple(rates), step_s=step_s),
    RATES,
    st.floats(0.05, 5),
)


@settings(max_examples=150, deadline=None)
@given(
    trace=TRACES,
    sends=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60_000)), min_size=1, max_size=30),
    limit=st.sampled_from([None, 30_000.0]),
    delay_s=st.sampled_from([0.0, 0.02]),
)
def test_no_more_bytes_than_the_trace_carries(
    trace: Trace, sends: list[tuple[float, int]], limit: float | None, delay_s: float
) -> None:
    uplink = Uplink(trace, 10.0, delay_s, limit)
    sends = sorted(sends)
    through = []
    for at_s, size in sends:
        arrival_s = uplink.send(10 + at_s, size)
        if arrival_s is not None:
            through.append((at_s, arrival_s - 10 - delay_s, size * 8))
    assert len(through) == len(sends) or limit is not None
    for first, (start_s, _, _) in enumerate(through):
        bits = 0
        for _, left_s, size in through[first:]:
            bits += size
            carried = trace.bits_until(left_s) - trace.bits_until(start_s)
            assert bits <= carried * (1 + 1e-9) + 1
    departures = [left_s for _, left_s, _ in through]
    assert departures == sorted(departures)


def test_a_run_conserves_bytes() -> None:
    served = serve(scene(2, fps=25, trace=NARROW, gap_s=0))
    for rows, step in zip(served.rows, (0, 1), strict=True):
        trace, start_s = NARROW.shifted(step), rows[0].capture_s
        arrived: dict[int, float] = defaultdict(float)
        for row in rows:
            if row.acked_s == row.acked_s:
                arrived[int(row.acked_s - start_s)] += (row.bytes_up + FRAME_HEADER_BYTES) * 8
        total = 0.0
        for second in sorted(arrived):
            total += arrived[second]
            assert total <= trace.bits_until(second + 1) + 1


def test_a_full_queue_loses_frames() -> None:
    link = LinkConfig(queue_limit_bytes=20_000)
    rows = serve(scene(1, trace=constant("thin", 0.2), link=link, fps=25)).rows
    lost = [row for row in rows[0] if row.outcome is Outcome.LOST]
    assert lost
    assert {row.reason for row in lost} == {"no answer"}


def test_a_client_that_no_plan_could_serve_is_refused() -> None:
    with pytest.raises(ExceptionGroup) as failed:
        serve(scene(1, slo_ms=5))
    assert isinstance(failed.value.exceptions[0], RejectedError)


def test_a_source_without_a_size_is_named() -> None:
    sizes = {px: found for px, found in clip().items() if px == INPUT_PX[-1]}
    with pytest.raises(ExceptionGroup) as failed:
        serve(replace(scene(1), sizes=sizes))
    assert isinstance(failed.value.exceptions[0], DataError)
    assert "128 px" in str(failed.value.exceptions[0])


def test_slower_workers_and_scheduler_cost_time() -> None:
    def mean_ms(played: Scene) -> float:
        rows = serve(played).rows[0]
        return sum(row.server_ms for row in rows) / len(rows)

    quick = scene(1, trace=SYNTHETIC, model=LatencyModel.from_dict(emulation(0.0)))
    assert mean_ms(replace(quick, hand_over_ms=5.0)) > mean_ms(quick) + 3
    slow = serve(replace(quick, scheduler_ms=40.0)).plans
    assert {round(plan.solve_ms) for plan in slow} == {40}


def test_clients_may_differ() -> None:
    clients = (SceneClient(fps=10, slo_ms=150), SceneClient(fps=25, slo_ms=75, start_s=1.0))
    served = serve(replace(scene(1), clients=clients))
    assert [len(rows) for rows in served.rows] == [100, 250]
