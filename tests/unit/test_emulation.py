"""Emulated latencies and answers: what both worlds draw from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiment import virtual_time
from experiment.emulated_worker import EmulatedWorker
from jellyfish.emulation import EmulatedAnswers, LatencyModel, uniform, worker_seed
from jellyfish.errors import DataError, DeviceError
from jellyfish.files.atomic import write_json
from jellyfish.files.emulation import read_latency_model
from server.devices import make
from server.worker import BatchResult, WorkerDied, WorkerFrame
from server.worker_process import ProcessWorker
from tests.simulated import INPUT_PX, clip, emulated_device, emulation, latency_ms

SAMPLES = {"kind": "samples", "samples_ms": [[[5.0, 6.0, 9.0], [10.0]], [[20.0], [30.0, 31.0]]]}


def test_the_stated_latency_is_the_p99() -> None:
    model = LatencyModel.from_dict(emulation())
    drawn = [model.duration_ms(2, 3, seed=5, n=n) for n in range(20_000)]
    p99, stated = np.quantile(drawn, 0.99), latency_ms(INPUT_PX[2], 3)
    assert p99 == pytest.approx(stated, rel=0.01)
    assert max(drawn) <= 1.3 * stated
    assert np.median(drawn) == pytest.approx(stated * np.exp(-2.33 * 0.06), rel=0.01)


def test_samples_are_drawn_evenly() -> None:
    model = LatencyModel.from_dict(SAMPLES)
    drawn = [model.duration_ms(0, 1, seed=1, n=n) for n in range(3000)]
    assert {drawn.count(ms) // 150 for ms in (5.0, 6.0, 9.0)} <= {6, 7}


@given(seed=st.integers(0, 2**63), n=st.integers(0, 2**40))
def test_draws_are_by_number(seed: int, n: int) -> None:
    assert 0 < uniform(seed, n) < 1
    assert uniform(seed, n) == uniform(seed, n) != uniform(seed, n + 1)
    assert worker_seed(seed, 0) != worker_seed(seed, 1)


@pytest.mark.parametrize(("dnn", "batch"), [(2, 1), (-1, 1), (0, 3), (0, 0)])
def test_what_the_model_lacks_is_named(dnn: int, batch: int) -> None:
    with pytest.raises(DataError, match=f"DNN {dnn} at {batch}"):
        LatencyModel.from_dict(SAMPLES).duration_ms(dnn, batch, 1, 0)


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "guess"},
        {"kind": "jitter", "latency_ms": [[1.0]], "sigma": 0.1},
        {"kind": "jitter", "latency_ms": [[-1.0]], "sigma": 0.1, "cap": 1.3},
        {"kind": "samples", "samples_ms": [[[]]]},
        [],
    ],
)
def test_a_model_that_is_none(value: object, tmp_path: Path) -> None:
    write_json(tmp_path / "emulation.json", value)
    with pytest.raises(DataError, match=r"emulation\.json: emulation"):
        read_latency_model(tmp_path / "emulation.json")


def test_a_smaller_frame_counts_as_seen_smaller() -> None:
    sizes = clip()
    answers = EmulatedAnswers({"a:b": sizes})
    assert answers.answer(b"a:b:7", 608, 608) is sizes[608].frames[7]
    assert answers.answer(b"a:b:7", 608, 224) is sizes[224].frames[7]
    assert answers.answer(b"a:b:7", 224, 608) is sizes[224].frames[7]
    assert answers.answer(b"a:b:7", 608, 300) is sizes[224].frames[7]


@pytest.mark.parametrize("tag", [b"", b"a", b"x:1", b"a:40", b"a:-1", b"\xff:1", b"a:1.5"])
def test_an_unknown_tag_is_that_frame_s_error(tag: bytes) -> None:
    said = EmulatedAnswers({"a": clip()}).answer(tag, 608, 608)
    assert isinstance(said, str)


def frames(count: int) -> list[WorkerFrame]:
    return [WorkerFrame(f"a:{i}".encode(), b"", 320) for i in range(count)]


BATCHES = [(0, 1, None), (2, 2, None), (2, 3, 4), (0, 1, 2)]  # dnn, frames, padded to


async def in_the_loop(seed: int) -> list[BatchResult]:
    model = LatencyModel.from_dict(emulation())
    answers = EmulatedAnswers({"a": clip()})
    worker = EmulatedWorker(model, answers, INPUT_PX, seed=seed, hand_over_ms=lambda: 0.5)
    await worker.start()
    for dnn in (0, 2):
        await worker.load(dnn)
    found = []
    for dnn, count, pad_to in BATCHES:
        begin_s = asyncio.get_running_loop().time()
        found.append(await worker.run(dnn, frames(count), pad_to))
        took_ms = (asyncio.get_running_loop().time() - begin_s) * 1000
        assert took_ms == pytest.approx(found[-1].busy_ms + 0.5)
    return found


def test_both_worlds_draw_the_same(tmp_path: Path) -> None:
    device = make(emulated_device(tmp_path, seed=9, clip_name="a"))
    with pytest.raises(DeviceError, match="not loaded"):
        device.run(0, frames(1))
    for dnn in (0, 2):
        device.load(dnn)
    real = [device.run(dnn, frames(count), pad_to) for dnn, count, pad_to in BATCHES]
    virtual = virtual_time.run(in_the_loop(9))
    for ours, theirs in zip(real, virtual, strict=True):
        assert ours.execute_ms == theirs.execute_ms
        for a, b in zip(ours.answers, theirs.answers, strict=True):
            assert not isinstance(a, str)
            assert not isinstance(b, str)
            assert np.array_equal(a.boxes, b.boxes)


@pytest.mark.slow
async def test_a_batch_in_real_time_takes_what_was_drawn(tmp_path: Path) -> None:
    worker = ProcessWorker(emulated_device(tmp_path, seed=3), "emulated")
    await worker.start()
    try:
        await worker.load(0)
        ran = [await worker.run(0, frames(1)) for _ in range(60)]
    finally:
        await worker.close()
    beyond_ms = np.array([result.busy_ms - result.execute_ms for result in ran])
    assert beyond_ms.min() >= 0  # an answer that came early would be a wrong one
    assert np.median(beyond_ms) < 0.5


def test_a_killed_worker_fails_what_it_had_to_do() -> None:
    async def main() -> None:
        model = LatencyModel.from_dict(emulation())
        worker = EmulatedWorker(model, EmulatedAnswers({}), INPUT_PX, seed=1)
        await worker.start()
        await worker.load(0)
        asyncio.get_running_loop().call_later(0.001, worker.die)
        with pytest.raises(WorkerDied):
            await worker.run(0, frames(1))
        with pytest.raises(WorkerDied):
            await worker.load(1)
        assert not worker.alive

    virtual_time.run(main())
