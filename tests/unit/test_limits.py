import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.source import encode
from experiment import virtual_time
from jellyfish.messages import Answer
from jellyfish.profile import Profile
from jellyfish.records import Outcome, Reason
from server.clients import MAX_UNANSWERED
from server.config import read_job
from server.limits import Limits
from server.settings import EngineConfig
from tests.engine_world import Camera, LoopWorker, engine_of, profile
from tests.jpeg_files import by_pillow, noise, scan_bomb

LIMITS = Limits.of(profile(), max_clients=4)
F = 27_000  # what a frame of the largest size weighs there


def profile_of(px: int, frame_bytes: float) -> Profile:
    return Profile(input_px=[px], frame_bytes=[frame_bytes], accuracy=[0.5], latency_ms=[[9.0]])


@pytest.mark.parametrize("px", [32, 96, 320, 608])
def test_noise_at_the_largest_size_passes_whatever_the_profile_says_of_video(px: int) -> None:
    limits = Limits.of(profile_of(px, 300.0), max_clients=1)
    for image in (encode(noise(px), px), by_pillow(noise(px), quality=90, subsampling=0)):
        assert limits.image_fault(image, decoded=True) is None
        assert len(image) > limits.frame_bytes / 4  # the bound is no wide one


def test_frames_heavier_than_noise_pass_where_the_profile_knows_of_such() -> None:
    limits = Limits.of(profile_of(96, 40_000.0), max_clients=1)
    assert limits.image_fault(bytes(150_000), decoded=False) is None
    assert limits.image_fault(bytes(160_001), decoded=False) == "160001 bytes; at most 160000"


def test_limits_of_a_server_fit_into_each_other() -> None:
    assert LIMITS.px == 512
    assert LIMITS.frame_bytes < LIMITS.message_bytes < LIMITS.client_bytes
    assert LIMITS.client_bytes >= MAX_UNANSWERED * F
    assert 2 * LIMITS.client_bytes <= LIMITS.total_bytes


@given(st.data())
def test_bytes_held_are_bounded_and_nobody_keeps_another_out(data: st.DataObject) -> None:
    clients = data.draw(st.integers(1, 6))
    limits = Limits.of(profile(), max_clients=clients)
    held: list[list[int]] = [[] for _ in range(clients)]
    sizes = st.integers(1, limits.message_bytes)
    moves = st.tuples(st.integers(0, clients - 1), sizes, st.booleans(), st.integers(1, 99))
    for client, size, answered, times in data.draw(st.lists(moves, max_size=60)):
        if answered:
            del held[client][:times]
            continue
        for _ in range(times):
            total = sum(map(sum, held))
            if not limits.full(size, sum(held[client]), total, clients):
                held[client].append(size)
    assert sum(map(sum, held)) <= limits.total_bytes
    assert max(map(sum, held)) <= limits.client_bytes
    total = sum(map(sum, held))
    for mine in held:
        if sum(mine) <= 3 * F:
            assert not limits.full(F, sum(mine), total, clients)


def outcome_of(camera: Camera, image: bytes) -> Answer:
    (answer,) = camera.answers[camera.send(image)]
    return answer


def test_bad_images_are_answered_at_once_and_reach_no_worker() -> None:
    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker], config=EngineConfig(check_images=True))
        good = Camera(engine, "good", 10, 150, image=encode(noise(64), 64)).join()
        bad = Camera(engine, "bad", 10, 150, image=b"no jpeg").join()
        await good.stream(1)
        for image, says in [
            (b"no jpeg", "bad image: not a JPEG"),
            (scan_bomb(512, 9000), "bad image: 9000 scans; at most 16"),
            (encode(noise(520), 520), "bad image: 520 x 520 px; at most 512 x 512"),
        ]:
            answer = outcome_of(bad, image)
            assert (answer.outcome, answer.reason) == (Outcome.ERROR, says)
        await good.stream(1)
        await engine.stop(1)
        good.check_one_answer_each()
        bad.check_one_answer_each()
        assert good.outcomes() == {Outcome.OK: 20}
        assert sum(frames for _, frames in worker.batches) == 20

    virtual_time.run(main())


@pytest.mark.parametrize("checked", [False, True])
def test_frames_that_weigh_too_much_are_refused_on_every_device(checked: bool) -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())], config=EngineConfig(check_images=checked))
        camera = Camera(engine, "a", 10, 150).join()
        weight = engine.settings.limits.frame_bytes + 1
        answer = outcome_of(camera, bytes(weight))
        says = f"bad image: {weight} bytes; at most {weight - 1}"
        assert (answer.outcome, answer.reason) == (Outcome.ERROR, says)
        await engine.stop(1)

    virtual_time.run(main())


def test_a_flood_of_bad_images_is_refused_before_anybody_looks_at_them() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())], config=EngineConfig(check_images=True))
        camera = Camera(engine, "a", 10, 150).join()
        for _ in range(100):
            camera.send(b"no jpeg")
        assert camera.outcomes()[Outcome.REJECTED] == 100 - 32  # the burst that is let through
        assert camera.reasons() == {"bad image: not a JPEG", Reason.TOO_FAST}
        await engine.stop(1)

    virtual_time.run(main())


def test_a_client_that_holds_too_many_bytes_is_refused_and_the_others_are_not() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile(), share=5)])
        limits = engine.settings.limits
        heavy = Camera(engine, "heavy", 60, 5000, image=bytes(limits.frame_bytes)).join()
        light = Camera(engine, "light", 10, 5000).join()
        for _ in range(20):
            heavy.send()
        assert heavy.handle
        assert limits.client_bytes - limits.frame_bytes < heavy.handle.held_bytes
        assert heavy.handle.held_bytes <= limits.client_bytes
        assert heavy.reasons() == {Reason.BYTES_LIMIT}
        assert set(heavy.outcomes()) == {Outcome.REJECTED}
        light.send()
        await engine.stop(60)
        heavy.check_one_answer_each()
        assert heavy.handle.held_bytes == 0
        assert light.outcomes() == {Outcome.OK: 1}

    virtual_time.run(main())


def test_a_client_that_leaves_takes_its_bytes_with_it() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile(), share=5)])
        frame = bytes(engine.settings.limits.frame_bytes)
        for name in "abcdefgh":  # each as much as one may hold, of four that there may be
            camera = Camera(engine, name, 60, 5000, image=frame).join()
            for _ in range(3):
                camera.send()
            assert not camera.answers
            assert camera.handle
            engine.leave(camera.handle)
            assert camera.handle.held_bytes == 0
        await engine.stop(0)

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("kinds", "checks"),
    [
        (["emulated"], False),
        (["onnxruntime"], True),
        (["emulated", "torch"], True),
        (["emulated", "emulated"], False),
    ],
)
def test_images_are_checked_unless_every_device_is_emulated(
    kinds: list[str], checks: bool, tmp_path: Path
) -> None:
    job: dict[str, Any] = {"zoo": "z", "profile": "p", "model": {}, "out_dir": "o"}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**job, "devices": [{"kind": kind} for kind in kinds]}))
    assert read_job(path).engine.check_images is checks
