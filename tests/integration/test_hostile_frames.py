"""A real server, and clients whose frames are bombs or heavy: the others do not notice."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from jellyfish.files.profiles import write_profile
from jellyfish.profile import Profile
from jellyfish.protocol import jellyfish_pb2 as pb
from server.limits import Limits
from server.zoo.onnx_export import export
from tests import simulated
from tests.integration.test_server import Client, Running, job_of, serving
from tests.jpeg_files import by_pillow, noise, scan_bomb
from tests.zoo_models import MIXED, ROOT, jpegs, write_mixed_weights

MB = 1 << 20
PX = MIXED.input_px[-1]
HONEST = jpegs([noise(PX)], PX)[0].image
LIMITS = Limits.of(simulated.profile(), max_clients=256)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export(MIXED.cfg, write_mixed_weights(folder / "mixed.weights"), folder / "model.onnx")
    dnns = len(MIXED.input_px)
    profile = Profile(
        input_px=MIXED.input_px,
        frame_bytes=[1000.0 * (m + 1) for m in range(dnns)],
        accuracy=[0.5 + 0.1 * m for m in range(dnns)],
        latency_ms=[[10.0 + 5 * m, 15.0 + 5 * m] for m in range(dnns)],
    )
    write_profile(folder / "profile.json", profile)
    return folder


class Told(Client):
    """A client that sends frames and keeps what became of each."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel)
        self.answers: dict[int, Any] = {}
        self.sent = 0

    async def send(self, image: bytes, px: int = PX, tag: bytes = b"clip:0") -> int:
        number, self.sent = self.sent, self.sent + 1
        await self.call.write(pb.Frame(id=number, tag=tag, image=image, px=px, bandwidth_kbps=1e9))
        return number

    async def listen(self) -> None:
        while (message := await self.call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("kind") == "result":
                self.answers[message.result.id] = message.result

    async def stream(self, until: asyncio.Event, image: bytes, px: int) -> None:
        while not until.is_set():
            await self.send(image, px)
            await asyncio.sleep(0.1)

    async def answered(self) -> None:
        async with asyncio.timeout(30):
            while len(self.answers) < self.sent:
                await asyncio.sleep(0.01)

    def outcomes(self) -> Counter[str]:
        return Counter(
            pb.Outcome.Name(a.outcome).removeprefix("OUTCOME_") for a in self.answers.values()
        )


async def told(server: Running, group: asyncio.TaskGroup, name: str, **registered: Any) -> Told:
    client = Told(server.channel())
    await client.join(name, **registered)
    group.create_task(client.listen())
    return client


def claiming(px: int) -> bytes:
    """Return an honest frame whose header claims another size."""
    size = HONEST.index(b"\xff\xc0") + 5
    return HONEST[:size] + struct.pack(">HH", px, px) + HONEST[size + 4 :]


BOMBS = {
    scan_bomb(4096, 500): "bytes; at most",
    scan_bomb(PX, 1000): "bytes in several scans; at most",
    scan_bomb(PX, 200): "200 scans; at most 16",
    claiming(20_000): f"20000 x 20000 px; at most {PX} x {PX}",
    HONEST[:-2]: "cut short",
    b"\xff\xd8" + np.random.default_rng(0).bytes(3000) + b"\xff\xd9": "bytes between segments",
    b"junk": "not a JPEG",
}
TAKEN = [scan_bomb(PX, 16), HONEST + bytes(64), by_pillow(noise(PX), subsampling=0)]


async def ended_by_its_size(server: Running) -> None:
    """Send what is too large for a message: that stream ends, with both sizes in its status."""
    client = Told(server.channel())
    await client.join("larger still", 10, 2000)
    await client.send(scan_bomb(4096, 9000))
    with pytest.raises(grpc.aio.AioRpcError, match=r"larger than max \(4\d+ vs\. ") as caught:
        await client.listen()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_bombs_are_answered_and_no_worker_dies_of_them(model: Path, tmp_path: Path) -> None:
    job = job_of(model, tmp_path, devices=[{"kind": "onnxruntime"}] * 2)
    async with serving(job) as server, asyncio.TaskGroup() as group:
        workers = server.workers()
        done = asyncio.Event()
        honest = [await told(server, group, f"honest{i}", fps=10, slo_ms=5000) for i in range(2)]
        hostile = await told(server, group, "hostile", fps=30, slo_ms=60_000)
        streams = [asyncio.create_task(c.stream(done, HONEST, PX)) for c in honest]
        bombs = {await hostile.send(bomb): says for bomb, says in BOMBS.items()}
        await ended_by_its_size(server)
        await asyncio.sleep(1)  # the burst that is let through is over
        taken = [await hostile.send(image) for image in TAKEN]
        await hostile.answered()
        done.set()
        await asyncio.gather(*streams)
        for client in honest:
            await client.answered()
            assert set(client.outcomes()) == {"OK"}
        for number, says in bombs.items():
            answer = hostile.answers[number]
            assert answer.outcome == pb.OUTCOME_ERROR
            assert answer.reason.startswith("bad image: ")
            assert says in answer.reason
        assert {hostile.answers[number].outcome for number in taken} == {pb.OUTCOME_OK}
        assert server.workers() == workers
        for client in (*honest, hostile):
            await client.call.done_writing()


def emulated_job(out: Path) -> Path:
    simulated.emulated_device(out, seed=1)
    write_profile(out / "profile.json", simulated.profile())
    paths = {str(px): str(out / f"{px}.npz") for px in simulated.INPUT_PX}
    return job_of(
        out,
        out,
        zoo=str(ROOT / "config" / "zoo" / "yolov3-tiny.yaml"),
        model={"emulation": str(out / "emulation.json"), "detections": {"clip": paths}},
        devices=[{"kind": "emulated", "profile": "synthetic", "max_batch": 1}],
    )


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


async def test_heavy_frames_take_no_more_memory_than_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever is freed goes back to the system at once: how the heap is cut up is not asked here.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(1 << 18))
    async with serving(emulated_job(tmp_path)) as server, asyncio.TaskGroup() as group:
        done = asyncio.Event()
        honest = await told(server, group, "honest", fps=10, slo_ms=2000)
        stream = asyncio.create_task(honest.stream(done, bytes(7000), 128))
        heavy = [await told(server, group, f"heavy{i}", fps=40, slo_ms=60_000) for i in range(4)]
        await asyncio.sleep(0.5)
        before = rss_bytes(server.process.pid)
        image, most = bytes(LIMITS.frame_bytes), 0

        async def pour(client: Told) -> None:
            for _ in range(64):
                await client.send(image, 128)

        pouring = asyncio.gather(*map(pour, heavy))
        while not pouring.done():
            most = max(most, rss_bytes(server.process.pid) - before)
            await asyncio.sleep(0.01)
        await pouring
        for client in heavy:
            client.call.cancel()
        done.set()
        await stream
        await honest.answered()
        # What frames may hold and two messages in each stream, and as much again for copies under
        # way. 64 frames of each, which may be without an answer otherwise, would be 190 MB.
        stated = len(heavy) * (LIMITS.client_bytes + 2 * LIMITS.message_bytes)
        assert most < 2 * stated
        reasons = {a.reason for c in heavy for a in c.answers.values()}
        assert "bytes limit" in reasons
        await honest.call.done_writing()
