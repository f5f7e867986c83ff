import asyncio
from collections.abc import Sequence
from math import inf, nan

import pytest

from experiment import virtual_time
from jellyfish.errors import RejectedError
from jellyfish.messages import Event, Frame
from jellyfish.records import Outcome, Reason
from server.clients import ClientHandle, Pending
from server.engine import NotServing, ServerFull
from server.queues import FrameQueue
from server.settings import EngineConfig
from server.worker import BatchResult, WorkerFrame
from tests.engine_world import Camera, LoopWorker, engine_of, profile


def test_every_frame_gets_one_answer_in_time_and_the_largest_dnn_that_fits() -> None:
    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker])
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(10)
        await engine.stop(1)
        camera.check_one_answer_each()
        assert camera.outcomes() == {Outcome.OK: 100}
        assert camera.late == 0
        assert worker.batches[-1][0] == 3  # 35 ms twice, and 5 ms of network, fit 150 ms
        assert camera.px == 512
        assert engine.summary()["clients"]["a"]["ok"] == 100

    virtual_time.run(main())


def test_the_same_seed_gives_the_same_run() -> None:
    async def main(seed: int) -> tuple[object, ...]:
        engine = await engine_of([LoopWorker(profile()), LoopWorker(profile())], seed=seed)
        cameras = [Camera(engine, f"c{i}", 15, 100).join() for i in range(6)]
        await asyncio.gather(*(camera.stream(4) for camera in cameras))
        await engine.stop(1)
        answers = [sorted(c.answers.items()) for c in cameras]
        told = [[(a.outcome, a.dnn_px, a.gpu, a.server_ms) for _, (a,) in x] for x in answers]
        return told, engine.plans

    assert virtual_time.run(main(3)) == virtual_time.run(main(3))


def test_overload_drops_promptly_and_never_answers_late() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(scale=3))  # some 150 frames/s at the very best
        engine = await engine_of([worker])
        cameras = [Camera(engine, f"c{i}", 25, 100).join() for i in range(8)]
        await asyncio.gather(*(camera.stream(5) for camera in cameras))
        await engine.stop(1)
        for camera in cameras:
            camera.check_one_answer_each()
            assert camera.late == 0
            assert camera.reasons() <= {"", Reason.NOT_MAPPED, Reason.TOO_LATE}
        answered = [a for c in cameras for (a,) in c.answers.values()]
        assert all(a.server_ms <= 100 for a in answered)
        assert sum(a.outcome is Outcome.OK for a in answered) > 200

    virtual_time.run(main())


def test_a_hopeless_frame_is_answered_while_a_batch_runs() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(), share=10.0)  # far slower than profiled
        engine = await engine_of([worker])
        camera = Camera(engine, "a", 10, 100).join()
        await asyncio.sleep(0.1)
        camera.send()
        await asyncio.sleep(0.01)
        hopeless = camera.send()
        await asyncio.sleep(0.1)
        (answer,) = camera.answers[hopeless]
        assert (answer.outcome, answer.reason) == (Outcome.DROPPED, Reason.TOO_LATE)
        assert answer.server_ms < 100
        assert not worker.batches  # the first one still runs
        await engine.stop(1)

    virtual_time.run(main())


def test_the_published_policy_pads_and_looks_only_between_batches() -> None:
    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker], policy_name="paper")
        cameras = [Camera(engine, f"c{i}", 15, 150).join() for i in range(6)]
        await asyncio.sleep(1)
        await asyncio.gather(*(camera.stream(5) for camera in cameras))
        await engine.stop(1)
        for camera in cameras:
            camera.check_one_answer_each()
        assert None not in worker.padded
        assert max(size for _, size in worker.batches) > 1

    virtual_time.run(main())


def test_dnns_swap_without_a_failure_and_the_cache_keeps_its_size() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(), load_s=1.0)
        engine = await engine_of([worker], config=EngineConfig(cached_dnns=2))
        first = Camera(engine, "a", 10, 150).join()
        streams = [asyncio.create_task(first.stream(12))]
        await asyncio.sleep(5)
        crowd = [Camera(engine, f"c{i}", 25, 100).join() for i in range(3)]
        await asyncio.gather(*(camera.stream(3) for camera in crowd))
        for camera in crowd:
            assert camera.handle
            engine.leave(camera.handle)
        await asyncio.gather(*streams)
        await engine.stop(1)
        assert first.outcomes().get(Outcome.ERROR, 0) == 0
        assert {dnn for dnn, _ in worker.batches} >= {1, 3}
        assert worker.most_loaded <= 3
        assert len(worker.loaded) == 0  # closed

    virtual_time.run(main())


def test_a_dnn_that_cannot_be_loaded_is_stood_in_for() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(), fail_loads={3})
        engine = await engine_of([worker], config=EngineConfig(cached_dnns=2))
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(5)
        await engine.stop(1)
        assert camera.outcomes() == {Outcome.OK: 50}
        assert {dnn for dnn, _ in worker.batches} <= {0, 1, 2}

    virtual_time.run(main())


def test_survivors_get_what_a_client_that_left_had() -> None:
    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker])
        stays = Camera(engine, "stays", 10, 150).join()
        ghosts = [Camera(engine, f"g{i}", 25, 100).join() for i in range(3)]
        await asyncio.gather(stays.stream(3), *(g.stream(3) for g in ghosts))
        crowded = stays.px
        for ghost in ghosts:
            assert ghost.handle
            ghost.send()
            engine.leave(ghost.handle)
            engine.leave(ghost.handle)  # harmless
        await stays.stream(3)
        assert stays.px > crowded
        await engine.stop(1)
        counts = engine.summary()["clients"]["g0"]
        assert counts["received"] == sum(
            v for k, v in counts.items() if k not in {"client", "received"}
        )

    virtual_time.run(main())


@pytest.mark.parametrize("kbps", [0.0, -5000.0, nan, inf, -inf])
def test_senseless_bandwidth_reports_harm_nobody(kbps: float) -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        good = Camera(engine, "good", 10, 150).join()
        bad = Camera(engine, "bad", 10, 150, kbps=kbps).join()
        await asyncio.gather(good.stream(4), bad.stream(4))
        await engine.stop(1)
        assert good.outcomes() == {Outcome.OK: 40}
        assert bad.outcomes() == {Outcome.OK: 40}

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("fps", "slo_ms"),
    [
        (0, 100),
        (-1, 100),
        (nan, 100),
        (inf, 100),
        (10, 0),
        (10, -1),
        (10, nan),
        (10, inf),
        (10, 12),
        (1e4, 100),
    ],
)
def test_what_no_plan_could_serve_is_refused_with_the_reason(fps: float, slo_ms: float) -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        with pytest.raises(RejectedError, match=r"fps is|slo_ms is|SLO of 12 ms|10000 frames/s"):
            Camera(engine, "a", fps, slo_ms).join()
        await engine.stop(0)

    virtual_time.run(main())


@pytest.mark.parametrize("fps", [7.3, 0.5, 29.97])
def test_any_frame_rate_is_served(fps: float) -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        camera = Camera(engine, "a", fps, 150).join()
        await camera.stream(4)
        await engine.stop(1)
        assert set(camera.outcomes()) == {Outcome.OK}

    virtual_time.run(main())


def test_a_full_server_says_so() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())], config=EngineConfig(max_clients=1))
        first = Camera(engine, "a", 10, 100).join()
        with pytest.raises(ServerFull, match="1 clients"):
            Camera(engine, "b", 10, 100).join()
        assert first.handle
        engine.leave(first.handle)
        Camera(engine, "b", 10, 100).join()
        await engine.stop(0)

    virtual_time.run(main())


def test_a_flood_is_refused_and_takes_nothing_from_others() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        good = Camera(engine, "good", 10, 100).join()
        flood = Camera(engine, "flood", 10, 100).join()

        async def pour() -> None:
            for _ in range(4000):
                flood.send()
                await asyncio.sleep(0.001)

        await asyncio.gather(good.stream(4), pour())
        await engine.stop(1)
        flood.check_one_answer_each()
        assert flood.outcomes()[Outcome.REJECTED] > 3500
        assert Reason.TOO_FAST in flood.reasons()
        assert good.outcomes()[Outcome.OK] >= 36  # the burst that is let through costs a few

    virtual_time.run(main())


def test_a_frame_that_is_no_jpeg_fails_alone() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        good = Camera(engine, "good", 10, 150).join()
        bad = Camera(engine, "bad", 10, 150, image=b"no jpeg").join()
        await asyncio.gather(good.stream(3), bad.stream(3))
        await engine.stop(1)
        assert good.outcomes() == {Outcome.OK: 30}
        assert bad.outcomes() == {Outcome.ERROR: 30}
        assert bad.reasons() == {"bad image: no JPEG"}

    virtual_time.run(main())


def test_a_client_whose_delivery_fails_is_out_and_the_others_go_on() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        good = Camera(engine, "good", 10, 150).join()

        def broken(event: object) -> None:
            raise OSError("gone")

        bad = Camera(engine, "bad", 10, 150)
        bad.handle = engine.join("bad", 10, 150, broken)
        await asyncio.gather(good.stream(2), bad.stream(2))
        await engine.stop(1)
        assert bad.handle.gone
        assert good.outcomes() == {Outcome.OK: 20}

    virtual_time.run(main())


def test_stopping_answers_what_waits_and_refuses_the_rest() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(2)
        before = [camera.send() for _ in range(3)]
        stopping = asyncio.create_task(engine.stop(1))
        await asyncio.sleep(0)
        after = camera.send()
        with pytest.raises(NotServing, match="stopping"):
            Camera(engine, "b", 10, 100).join()
        await stopping
        camera.check_one_answer_each()
        assert {camera.answers[i][0].outcome for i in before} == {Outcome.OK}
        assert camera.answers[after][0].reason == Reason.STOPPING

    virtual_time.run(main())


@pytest.mark.parametrize(("name", "outcome"), [("paper", Outcome.OK), ("jellyfish", "dropped")])
def test_time_on_the_device_counts_unless_published(name: str, outcome: str) -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())], policy_name=name)
        camera = Camera(engine, "a", 10, 100).join()
        await camera.stream(2)
        camera.device_ms = 97
        frame = camera.send()
        await engine.stop(1)
        assert camera.answers[frame][0].outcome == outcome

    virtual_time.run(main())


def test_plans_are_recorded() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile()), LoopWorker(profile())])
        cameras = [Camera(engine, f"c{i}", 10, 150, kbps=9000).join() for i in range(2)]
        await asyncio.gather(*(camera.stream(3) for camera in cameras))
        await engine.stop(1)
        assert 6 <= len(engine.plans) <= 9  # every half second, and when they joined
        last = engine.plans[-1]
        assert last.clients == [0, 1]
        assert set(last.mapping) <= {0, 1}
        assert len(last.dnns_px) == len(last.batches) == 2
        assert last.bandwidth_kbps == [pytest.approx(9000)] * 2
        assert last.solve_ms == pytest.approx(10)
        assert last.effectiveness == 1

    virtual_time.run(main())


def test_a_client_that_sends_nothing_keeps_nobody_from_a_gpu() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(scale=2))
        engine = await engine_of([worker])
        ghosts = [Camera(engine, f"ghost{i}", 20, 150).join() for i in range(6)]
        await asyncio.gather(*(ghost.stream(1) for ghost in ghosts))
        await asyncio.sleep(2.5)
        honest = [Camera(engine, f"c{i}", 15, 150, kbps=20_000).join() for i in range(3)]
        await asyncio.sleep(0.3)
        await asyncio.gather(*(camera.stream(5) for camera in honest))
        assert sum(c.outcomes().get(Outcome.OK, 0) for c in honest) >= 0.95 * 3 * 75
        before = ghosts[0].sent
        await ghosts[0].stream(3)  # it is back, and there is room for it
        await asyncio.sleep(0.2)
        answers = [a for k in range(before, ghosts[0].sent) for a in ghosts[0].answers[k]]
        assert sum(a.outcome is Outcome.OK for a in answers) >= 0.9 * len(answers)
        await engine.stop(1)
        for camera in (*ghosts, *honest):
            camera.check_one_answer_each()

    virtual_time.run(main())


def test_a_free_worker_has_a_frame_before_its_client_is_told() -> None:
    order: list[str] = []

    class Noting(LoopWorker):
        async def run(
            self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
        ) -> BatchResult:
            order.append("runs")
            return await super().run(dnn, frames, pad_to)

    class Reader(Camera):
        def deliver(self, event: Event) -> None:
            super().deliver(event)
            kind = type(event).__name__
            asyncio.get_running_loop().call_soon(order.append, kind)  # as a stream's task would

    async def main() -> None:
        engine = await engine_of([Noting(profile())])
        camera = Reader(engine, "a", 10, 150).join()
        await asyncio.sleep(1)
        camera.send()
        await asyncio.sleep(1)
        await engine.stop(1)
        assert order == ["runs", "Ack", "Answer"]

    virtual_time.run(main())


def test_a_hopeless_frame_is_found_behind_ones_that_ran() -> None:
    expired: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = FrameQueue("fifo", lambda pending: expired.append(pending.deadline_s - loop.time()))
        queue.set_lead(0.1)
        begin_s = loop.time()
        for order, deadline_s in enumerate((0.5, 0.3, 2.0, 1.0)):
            queue.put(_pending(begin_s + deadline_s, order))
        assert len(queue.pick((0, 1))) == 2  # those whose timer runs
        await asyncio.sleep(3)
        assert not len(queue)

    virtual_time.run(main())
    assert expired == pytest.approx([0.1, 0.1])


def _pending(deadline_s: float, order: int) -> Pending:
    client = ClientHandle(0, "a", 10, 150, lambda event: None, 0, 0.5)
    return Pending(client, Frame(order, b"", b"", 128, 1e6, 0), 0, deadline_s, order, 0)


def test_a_clients_hiccup_does_not_keep_it_from_a_gpu() -> None:
    async def main() -> None:
        engine = await engine_of([LoopWorker(profile())])
        camera = Camera(engine, "a", 2, 150).join()
        await camera.stream(2)
        camera.device_ms = 1500  # its device stood still: three frames come late
        late = [camera.send() for _ in range(3)]
        camera.device_ms = 0
        await asyncio.sleep(1)
        frame = camera.send()
        await engine.stop(1)
        assert {camera.answers[i][0].outcome for i in late} == {Outcome.DROPPED}
        assert camera.answers[frame][0].outcome is Outcome.OK

    virtual_time.run(main())
