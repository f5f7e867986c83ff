"""Defects in the engine: frames, queues, health."""

from __future__ import annotations

from typing import Any

from tests.chaos.mutants import Mutant, instead


def _loses_the_waiting(original: Any) -> Any:
    def gpu_down(engine: Any, gpu: Any, waiting: list[Any]) -> None:
        original(engine, gpu, [])

    return gpu_down


def _leaves_frames_behind(original: Any) -> Any:
    def take_back(gpu: Any, client: Any) -> list[Any]:
        return [] if client.gone else original(gpu, client)  # type: ignore[no-any-return]

    return take_back


def _answers_twice(original: Any) -> Any:
    def fail(gpu: Any, batch: list[Any], reason: str) -> None:
        original(gpu, batch, reason)
        for pending in batch:
            if not pending.client.gone:
                pending.client.deliver(_Again(pending))

    return fail


def _Again(pending: Any) -> Any:  # noqa: N802 - an answer
    from jellyfish.messages import Answer
    from jellyfish.records import Outcome

    return Answer(id=pending.frame.id, outcome=Outcome.ERROR, reason="again", next_px=128)


MUTANTS = [
    Mutant("a death loses what waits", "server.engine:Engine.gpu_down", _loses_the_waiting),
    Mutant("frames of the gone stay queued", "server.gpu:Gpu.take_back", _leaves_frames_behind),
    Mutant(
        "the silent keep their capacity",
        "server.clients:ClientHandle.quiet",
        instead(lambda *_: False),
    ),
    Mutant("a failed batch is answered twice", "server.gpu:Gpu._fail", _answers_twice),
    Mutant("health lies", "server.engine:Engine.healthy", instead(property(lambda _: True))),
    Mutant("bytes are unbounded", "server.limits:Limits.full", instead(lambda *_: False)),
    Mutant(
        "any image is taken",
        "server.limits:Limits.image_fault",
        instead(lambda *_: None),
    ),
    Mutant(
        "floods are admitted",
        "server.clients:ClientHandle.refusal",
        instead(lambda *_: None),
    ),
]
