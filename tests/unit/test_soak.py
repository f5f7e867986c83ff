"""The soak's faults and checks: what is wrong is found, what is right is not."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Fault
from tests.soak import checks
from tests.soak.checks import Captured, Frames, Struck
from tests.soak.faults import AFTER_S, CLIENTS, KINDS, allowed_s, draw, lasts_s
from tests.soak.watching import Probed, Sample, Stalls

FPS = 10.0
AT = ("time_s", "life")  # of a sample


def frames(bad: tuple[float, float] = (0, 0), client: int | None = None) -> Frames:
    """Return a minute of frames; those captured within `bad` are late."""
    every = [(k / FPS, n) for k in range(600) for n in range(CLIENTS)]
    return Frames(
        [Captured(t, n, not (bad[0] <= t < bad[1] and client in (None, n))) for t, n in every]
    )


def struck(kind: str = "worker dies", for_s: float = 1.0, target: str = "gpu:0") -> Struck:
    fault = Fault(20.0, target, kind, for_s=for_s)
    return Struck(fault, 20.0, 20.0 + for_s, allowed_s(fault, 1.0))


def judged(
    one: Struck, seen: Frames, late_s: float = 0.0, others_s: float = 0.0, waited_s: float = 0.0
) -> list[str]:
    stalls = Stalls()
    stalls.seen.append((one.end_s + one.allowed_s + 1, late_s))
    watched = [replace(s, others_s=others_s, waited_s=waited_s) for s in samples()]
    checks.judge(one, seen, stalls, watched)
    return [violation.check for violation in one.violations]


def test_each_kind_comes_before_any_comes_again() -> None:
    faults = draw(3, 3600.0)
    assert {fault.kind for fault in faults[: len(KINDS)]} == set(KINDS)
    assert faults == draw(3, 3600.0)
    assert faults != draw(4, 3600.0)
    for one, next_one in pairwise(faults):
        assert next_one.time_s >= one.time_s + lasts_s(one) + allowed_s(one, 0) + AFTER_S
    assert faults[-1].time_s < 3600


def test_recovery_is_measured() -> None:
    one = struck()
    assert judged(one, frames(bad=(20, 23))) == []
    assert one.lost == 3 * FPS * CLIENTS
    assert one.recovery_s == pytest.approx(2.0, abs=0.25)


def test_frames_that_stay_late_are_a_violation_unless_the_machine_was_busy() -> None:
    assert judged(one := struck(), frames(bad=(20, 60))) == ["recovery"]
    assert one.recovery_s is None
    assert judged(one := struck(), frames(bad=(20, 60)), late_s=1.0) == []
    assert one.disturbed
    busy = {"others_s": 1.5, "waited_s": 3.0}  # others had the cores, and the soak waited for them
    assert judged(one := struck(), frames(bad=(20, 60)), **busy) == []
    assert one.disturbed
    assert judged(struck(), frames(bad=(20, 60)), others_s=1.5) == ["recovery"]
    assert judged(struck(), frames(bad=(20, 60)), waited_s=3.0) == ["recovery"]  # its own doing


def test_a_fault_of_a_link_is_judged_by_its_client() -> None:
    target = "link:2"
    assert judged(struck("link cut", target=target), frames((30, 60), client=1)) == []
    assert judged(struck("link cut", target=target), frames((20, 60), client=2)) == ["recovery"]


def test_the_link_of_one_costs_the_others_nothing() -> None:
    meanwhile = frames((20, 23), client=1)
    assert judged(struck("link cut", 4.0, target="link:1"), meanwhile) == []
    assert judged(struck("link cut", 4.0, target="link:2"), meanwhile) == ["isolation"]


def test_a_visit_that_costs_others_is_a_violation() -> None:
    visit = struck("client floods", 5.0, "client")
    assert judged(visit, frames((20.0, 20.3))) == []
    assert judged(struck("client floods", 5.0, "client"), frames((20, 22))) == ["isolation"]


def rows(count: int = 100, **changes: Any) -> list[dict[str, Any]]:
    row = {"client": 0, "fps": FPS, "outcome": "ok", "reason": "", **changes}
    return [{**row, "frame": k, "capture_s": 5 + k / FPS} for k in range(count)]


def ticks(given: list[dict[str, Any]]) -> list[str]:
    return [violation.text for violation in checks.ticks(given, 0, 15.0)]


def test_every_tick_has_one_row() -> None:
    assert ticks(rows()) == []
    assert ticks(rows()[::-1]) == []  # they are written as they end
    assert ticks([]) == ["client 0: no rows"]
    assert ticks([*rows(), rows()[7]]) == ["client 0: tick 7 twice"]
    assert ticks(rows()[:50] + rows()[51:]) == ["client 0: tick 49 followed by 51"]
    assert ticks(rows(70)) == ["client 0: rows of ticks 0 to 69"]
    shifted = rows()
    shifted[9]["capture_s"] += 0.01
    assert ticks(shifted) == ["client 0: tick 9 at another time"]


def test_every_frame_has_one_answer() -> None:
    told = {"twice": 0, "unasked": 0, "failed": ""}

    def found(given: list[dict[str, Any]], **changes: Any) -> list[str]:
        return [v.text for v in checks.answers(given, {**told, **changes}, 0, 15.0)]

    assert found(rows()) == []
    assert found(rows(), twice=2) == ["client 0: 2 answers twice"]
    unanswered = rows(reason="no answer")
    assert found(unanswered[90:]) == []  # under way at the end
    assert found(unanswered[8:9]) == ["client 0: frame 8 has no answer"]


def counts(**changes: int) -> dict[str, Any]:
    books = {"received": 9, "ok": 5, "dropped": 2, "rejected": 1, "error": 0, "abandoned": 1}
    return {"clients": {"client-0": {**books, **changes}}}


def test_books_are_even() -> None:
    assert list(checks.books(counts(), "server-0", killed=False)) == []
    assert len(list(checks.books(counts(received=10), "server-0", killed=False))) == 1
    assert list(checks.books(counts(received=10), "server-0", killed=True)) == []
    assert len(list(checks.books(counts(received=8), "server-0", killed=True))) == 1


def test_servers_know_of_what_clients_got() -> None:
    def found(known: int, *, killed: bool) -> int:
        return len(list(checks.agreement(rows(), [(counts(ok=known), killed)], 0, FPS)))

    assert not found(100, killed=False)
    assert found(99, killed=False)
    assert not found(85, killed=True)
    assert found(70, killed=True)


def test_damaged_records_and_errors_in_logs_are_found(tmp_path: Path) -> None:
    plans, log = tmp_path / "server.plans.jsonl", tmp_path / "server.log"
    plans.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert list(checks.half_lines(tmp_path)) == []  # killed while it wrote
    plans.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    assert len(list(checks.half_lines(tmp_path))) == 1
    log.write_text("INFO all is well\n")
    assert list(checks.bad_lines(log)) == []
    log.write_text("Traceback (most recent call last):\n")
    assert len(list(checks.bad_lines(log))) == 1


def test_serving_without_serving_is_a_lie() -> None:
    def lies(served: str, serving: str) -> int:
        pairs = zip(serving, served, strict=True)
        seen = [Probed(float(i), a == "y", b == "y", "") for i, (a, b) in enumerate(pairs)]
        return len(list(checks.health(seen)))

    assert lies(served="yyyyyy", serving="yyyyyy") == 0
    assert lies(served="ynnnyy", serving="yyyyyy") == 0
    assert lies(served="ynnnny", serving="yyyyyy") == 1
    assert lies(served="ynnnny", serving="ynnnny") == 0


def samples(**last: float) -> list[Sample]:
    made = []
    for second in range(120):
        values: dict[str, Any] = {f.name: 20 for f in fields(Sample) if f.name not in AT}
        values |= {"children": 3, "log_bytes": second * 100, "record_bytes": 0}
        grown = {k: v * second / 120 + values[k] for k, v in last.items()}
        made.append(Sample(time_s=float(second), life=0, **{**values, **grown}))
    return made


@pytest.mark.parametrize(
    "what", ["server_mb", "files", "threads", "tasks", "load_mb", "load_files"]
)
def test_growth_is_found(what: str) -> None:
    assert list(checks.growth(samples(), {0: 0.0})) == []
    assert [v.check for v in checks.growth(samples(**{what: 100}), {0: 0.0})] == ["growth"]


def test_children_and_logs_are_counted() -> None:
    assert [v.check for v in checks.growth(samples(children=1), {0: 0.0})] == ["processes"]
    assert list(checks.log_rate(samples())) == []
    assert len(list(checks.log_rate(samples(log_bytes=5e6)))) == 1
