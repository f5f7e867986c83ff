"""Worker processes as they serve: real processes, real device, small random network."""

import asyncio
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from jellyfish.detections import Detections
from jellyfish.errors import DataError, DeviceError
from server.devices import DeviceSpec, device_spec, make
from server.worker import WorkerDied, WorkerFrame
from server.worker_process import ProcessWorker
from server.zoo.onnx_export import export
from tests.zoo_models import MIXED, ROOT, jpegs, write_mixed_weights


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> DeviceSpec:
    folder = tmp_path_factory.mktemp("worker")
    weights = write_mixed_weights(folder / "mixed.weights")
    onnx = folder / "model.onnx"
    export(MIXED.cfg, weights, onnx)
    return device_spec({"kind": "onnxruntime"}, MIXED, onnx=onnx, weights=weights, max_batch=2)


@pytest.fixture
async def worker(spec: DeviceSpec) -> AsyncIterator[ProcessWorker]:
    worker = ProcessWorker(spec, "gpu0")
    await worker.start()
    yield worker
    await worker.close()


@pytest.fixture(scope="module")
def frames() -> list[WorkerFrame]:
    noise = np.random.default_rng(1).integers(0, 255, (3, 96, 96, 3)).astype(np.uint8)
    return jpegs(list(noise), 96)


async def stopped(pid: int) -> None:
    """Stop a process, so that what comes next surely finds it busy."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        await asyncio.sleep(0.001)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_it_answers_what_its_device_answers(
    worker: ProcessWorker, spec: DeviceSpec, frames: list[WorkerFrame]
) -> None:
    device = make(spec)
    device.load(2)
    await worker.load(2)
    batch = [*frames, WorkerFrame(b"", b"junk", 96)]
    here, there = device.run(2, batch), await worker.run(2, batch, pad_to=6)
    assert there.answers[3] == here.answers[3] == "not a JPEG"
    for a, b in zip(here.answers[:3], there.answers[:3], strict=True):
        assert isinstance(a, Detections)
        assert isinstance(b, Detections)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-5)
    assert sum(len(a) for a in there.answers[:3]) > 0
    assert there.busy_ms >= there.decode_ms + there.execute_ms > 0


async def test_what_is_not_loaded_is_refused_and_the_worker_lives_on(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    with pytest.raises(DeviceError, match="DNN 0 is not loaded"):
        await worker.run(0, frames)
    with pytest.raises(DeviceError, match="no DNN 9"):
        await worker.load(9)
    await worker.load(0)
    await worker.run(0, frames)
    await worker.evict(0)
    with pytest.raises(DeviceError, match="DNN 0 is not loaded"):
        await worker.run(0, frames)
    assert worker.alive


async def test_batches_go_on_while_a_dnn_loads(spec: DeviceSpec, frames: list[WorkerFrame]) -> None:
    slow = dataclasses.replace(spec, input_px=(32, 512), max_batch=3)
    worker = ProcessWorker(slow, "gpu0")
    await worker.start()
    try:
        await worker.load(0)
        loading = asyncio.create_task(worker.load(1))
        ran = 0
        while not loading.done():
            await worker.run(0, frames[:1])
            ran += 1
        assert ran > 3
        assert len((await worker.run(1, frames[:1])).answers) == 1
    finally:
        await worker.close()


async def test_death_reaches_every_caller_and_it_starts_again(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    await worker.load(0)
    pid = worker.pid
    assert pid is not None
    await stopped(pid)
    calls = [asyncio.create_task(worker.run(0, frames)), asyncio.create_task(worker.load(1))]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert [type(result) for result in results] == [WorkerDied, WorkerDied]
    assert f"process {pid} ended (SIGKILL)" in str(results[0])
    assert not worker.alive
    assert gone(pid)
    with pytest.raises(WorkerDied, match="gpu0 is not running"):
        await worker.run(0, frames)

    await worker.start()
    assert worker.alive
    with pytest.raises(DeviceError, match="not loaded"):  # it starts empty
        await worker.run(0, frames)
    await worker.load(0)
    assert len((await worker.run(0, frames)).answers) == 3


async def test_closing_does_not_wait_for_a_stuck_process(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    await worker.load(0)
    pid = worker.pid
    assert pid is not None
    await stopped(pid)
    call = asyncio.create_task(worker.run(0, frames * 100))  # more than the socket holds
    await asyncio.sleep(0)
    await asyncio.wait_for(worker.close(), 5)
    with pytest.raises(WorkerDied):
        await call
    assert gone(pid)
    await worker.close()
    assert worker.pid is None


@pytest.mark.parametrize("side", [97, 20_000])  # its largest input has 96
async def test_a_file_that_claims_more_pixels_than_any_dnn_takes_is_refused(
    worker: ProcessWorker, frames: list[WorkerFrame], side: int
) -> None:
    await worker.load(0)
    bomb = bytearray(frames[0].image)
    size = bomb.index(b"\xff\xc0") + 5
    bomb[size : size + 4] = side.to_bytes(2, "big") * 2
    result = await worker.run(0, [WorkerFrame(b"", bytes(bomb), 32), frames[0]])
    assert str(result.answers[0]).startswith("the JPEG cannot be decoded")
    assert isinstance(result.answers[1], Detections)


async def test_a_batch_of_large_frames_arrives_as_it_was(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    await worker.load(0)
    heavy = [dataclasses.replace(f, image=f.image + bytes(1 << 20)) for f in frames]  # padding
    there, here = await worker.run(0, heavy), await worker.run(0, frames)
    for a, b in zip(there.answers, here.answers, strict=True):
        assert isinstance(a, Detections)
        assert isinstance(b, Detections)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-5)


async def test_who_stops_waiting_harms_nobody(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    await worker.load(0)
    call = asyncio.create_task(worker.run(0, frames))
    await asyncio.sleep(0)
    call.cancel()
    assert len((await worker.run(0, frames[:2])).answers) == 2


async def test_a_device_that_cannot_open_says_why(spec: DeviceSpec, tmp_path: Path) -> None:
    worker = ProcessWorker(dataclasses.replace(spec, model=tmp_path / "absent.onnx"), "gpu0")
    with pytest.raises(DataError, match=r"absent\.onnx is missing"):
        await worker.start()
    assert not worker.alive
    assert worker.pid is None


async def test_a_device_that_takes_too_long_is_given_up(spec: DeviceSpec) -> None:
    worker = ProcessWorker(spec, "gpu0", start_timeout_s=0.01)
    with pytest.raises(DeviceError, match=r"gpu0: the device did not open within 0\.01 s"):
        await worker.start()
    assert worker.pid is None


async def test_it_keeps_to_its_cores(spec: DeviceSpec) -> None:
    core = max(os.sched_getaffinity(0))
    worker = ProcessWorker(dataclasses.replace(spec, cores=(core,)), "gpu0")
    await worker.start()
    try:
        assert worker.pid is not None
        tasks = [int(task) for task in os.listdir(f"/proc/{worker.pid}/task")]
        assert {frozenset(os.sched_getaffinity(task)) for task in tasks} == {frozenset({core})}
    finally:
        await worker.close()


async def test_serving_on_a_cpu_needs_no_torch(worker: ProcessWorker) -> None:
    mapped = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert "libtorch" not in mapped


async def test_interrupts_are_left_to_the_server(
    worker: ProcessWorker, frames: list[WorkerFrame]
) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    await worker.load(0)
    assert len((await worker.run(0, frames)).answers) == 3


def test_no_worker_outlives_its_server(spec: DeviceSpec, tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio, pickle, sys, time
            from server.worker_process import ProcessWorker

            async def main():
                worker = ProcessWorker(pickle.load(open(sys.argv[1], "rb")), "gpu0")
                await worker.start()
                print(worker.pid, flush=True)
                time.sleep(60)

            asyncio.run(main())
        """)
    )
    pickled = tmp_path / "spec"
    pickled.write_bytes(pickle.dumps(spec))
    server = subprocess.Popen(
        [sys.executable, str(script), str(pickled)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert not gone(pid)
        server.kill()
    deadline = time.monotonic() + 5
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(pid)
