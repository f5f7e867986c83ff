"""The commands for tc: what is shaped, by how much, when, and how an interface is put back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.shaping.tc_commands import Commands, Schedule, Uplink
from client.shaping.tc_report import passed
from client.shaping.tc_root import PORTS_EACH, Lines, Qdisc, root_qdisc
from jellyfish.errors import ConfigError
from jellyfish.trace import Trace, constant, from_rates

FRAME = 1514  # of an MTU of 1500
SHARE = 1448 / FRAME  # of it, TCP carries

rates = st.one_of(st.just(0.0), st.floats(0.01, 1000))
traces = st.lists(rates, min_size=1, max_size=8).filter(any)


def uplink(number: int = 1, trace: Trace | None = None) -> Uplink:
    first_port = 20480 + PORTS_EACH * (number - 1)
    return Uplink(number=number, first_port=first_port, trace=trace or constant("t", 20))


def words(line: str) -> dict[str, str]:
    return dict(pairwise(line.split()))


def told(commands: Commands, uplinks: Sequence[Uplink], mbps: Iterable[float] = ()) -> list[str]:
    """Return what tc is told, by way of the helper: all is set up, then the first has rates."""
    asked = [*commands.set_up(uplinks), *(commands.change(uplinks[0], rate) for rate in mbps)]
    lines = Lines("eth0")
    return [line for request in asked for line in lines.of(request.encode())]


def changed(commands: Commands, mbps: float) -> str:
    return told(commands, [uplink()], [mbps])[-1]


def test_a_class_a_leaf_and_two_filters_for_each_client() -> None:
    lines = told(Commands("eth0", 1500), [uplink(1), uplink(2)])
    assert lines[0] == "qdisc replace dev eth0 root handle 4a46: htb default 0 direct_qlen 1000"
    assert len(lines) == 1 + 2 * 4
    assert lines[5].startswith("class add dev eth0 parent 4a46: classid 4a46:2 htb rate ")
    assert lines[6].startswith("qdisc add dev eth0 parent 4a46:2 handle 4a48: tbf rate ")
    assert lines[7] == (
        "filter add dev eth0 parent 4a46: protocol ip prio 1 u32 "
        "match ip protocol 6 0xff match ip sport 20496 0xfff0 flowid 4a46:2"
    )
    assert "protocol ipv6" in lines[8]
    assert "match ip6 sport 20496 0xfff0" in lines[8]


@given(st.floats(0.01, 1000), st.sampled_from([4, 6]), st.integers(576, 9000))
def test_full_frames_carry_the_rate_of_the_trace(mbps: float, family: int, mtu: int) -> None:
    commands = Commands("eth0", mtu, family=family)
    carried = mtu - (52 if family == 4 else 72)
    frames_per_s = commands.wire_bps(mbps) / 8 / (mtu + 14)
    assert isclose(frames_per_s * carried * 8, mbps * 1e6)


@given(traces, st.integers(576, 9000), st.sampled_from(["tbf", "htb"]))
def test_whatever_the_trace_a_frame_can_pass_and_a_queue_can_stand(
    mbps: list[float], mtu: int, leaf: str
) -> None:
    one = uplink(trace=from_rates("t", mbps, 1))
    commands = Commands("eth0", mtu, leaf=leaf)
    for line in told(commands, [one], mbps):
        found = words(line)
        if "tbf" in found or "ceil" in found:
            assert int(found["burst"]) >= mtu + 14
            assert int(found["rate"].removesuffix("bit")) >= 1000
        if "limit" in found:  # ten seconds of the fastest rate, at every rate
            assert int(found["limit"]) >= max(mbps) * 1e6 / 8 * 10


def test_the_burst_is_a_frame_and_what_a_late_timer_costs() -> None:
    slow, fast = (changed(Commands("eth0", 1500), rate) for rate in (1, 40))
    assert 1514 <= int(words(slow)["burst"]) < 1600
    assert isclose(int(words(fast)["burst"]) - int(words(slow)["burst"]), 1275, rel_tol=0.01)
    fixed = changed(Commands("eth0", 1500, burst_bytes=1540), 40)
    assert words(fixed)["burst"] == "1540"


def test_htb_alone_changes_its_class() -> None:
    commands = Commands("eth0", 1500, leaf="htb")
    assert "bfifo limit" in "\n".join(told(commands, [uplink()]))
    change = changed(commands, 5)
    assert change.startswith("class change dev eth0 parent 4a46: classid 4a46:1 htb rate ")
    assert words(change)["rate"] == words(change)["ceil"] == f"{5e6 / SHARE:.0f}bit"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="burst_bytes 1500: nothing would pass"):
        Commands("eth0", 1500, burst_bytes=1500)
    with pytest.raises(ConfigError, match="tc leaf 'fq'"):
        Commands("eth0", 1500, leaf="fq")
    for port in (20481, 0, 65536):
        with pytest.raises(ConfigError, match=f"first source port {port}"):
            Uplink(number=1, first_port=port, trace=constant("t", 1))


@given(traces, st.floats(0.1, 5), st.lists(st.floats(0, 3), max_size=20))
def test_a_schedule_is_where_the_trace_is(
    mbps: list[float], step_s: float, waits: list[float]
) -> None:
    trace = from_rates("t", mbps, step_s)
    schedule, rate, k = Schedule(trace), trace.mbps[0], 0.0
    for wait in waits:
        k += wait
        t = (k + 1e-6) * step_s  # on a step's very edge rounding may decide
        rate = found if (found := schedule.take(t)) is not None else rate
        assert rate * 1000 == trace.rate_kbps(t)
        assert schedule.due_s > t


def test_a_schedule_tells_only_changes() -> None:
    schedule = Schedule(from_rates("t", [20, 20, 10, 10, 20], 2))
    assert schedule.due_s == 4
    assert schedule.take(3.9) is None
    assert schedule.take(4) == 10
    assert schedule.due_s == 8
    assert schedule.take(9) == 20
    assert schedule.due_s == 14  # the next round's third step: the first two change nothing
    assert Schedule(constant("flat", 5)).due_s == inf


SHOWN = """\
qdisc noqueue 0: dev lo root refcnt 2
qdisc htb 4a46: dev eth0 root refcnt 2 r2q 10 default 0 direct_packets_stat 4 direct_qlen 1000
qdisc tbf 4a47: dev eth0 parent 4a46:1 rate 20Mbit burst 3036b lat 10s
qdisc ingress ffff: dev eth0 parent ffff:fff1 ----------------
"""


@pytest.mark.parametrize(
    ("shown", "commands"),
    [
        ("qdisc noqueue 0: root refcnt 2 ", []),
        ("qdisc pfifo_fast 0: root refcnt 2 bands 3 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1", []),
        ("qdisc mq 0: root \nqdisc fq_codel 0: parent :2 limit 10240p flows 1024", []),
        ("qdisc pfifo 8001: root refcnt 2 limit 100p", ["handle 8001: pfifo limit 100"]),
        (
            "qdisc tbf 8002: root refcnt 2 rate 1Mbit burst 1540b lat 10s",
            ["handle 8002: tbf rate 1Mbit burst 1540b lat 10s"],
        ),
        (
            "qdisc fq_codel 1: root refcnt 2 limit 10240p flows 1024 quantum 1514 target 5ms "
            "interval 100ms memory_limit 32Mb ecn drop_batch 64",
            [
                "handle 1: fq_codel limit 10240 flows 1024 quantum 1514 target 5ms "
                "interval 100ms memory_limit 32Mb ecn drop_batch 64"
            ],
        ),
        (
            "qdisc sfq 8003: root refcnt 2 limit 127p quantum 1514b depth 127 perturb 10sec ",
            ["handle 8003: sfq limit 127 quantum 1514b depth 127 perturb 10"],
        ),
        ("qdisc pfifo_fast 8004: root refcnt 2 bands 3 priomap 1 2", ["handle 8004: pfifo_fast"]),
    ],
)
def test_an_interface_is_put_back(shown: str, commands: list[str]) -> None:
    before = root_qdisc(shown)
    assert before is not None
    assert before.restorable
    assert not before.ours
    expected = [f"qdisc replace dev eth0 root {command}" for command in commands]
    assert before.commands("eth0") == ["qdisc delete dev eth0 root", *expected]


def test_our_own_and_what_cannot_be_put_back_are_known() -> None:
    ours = root_qdisc(SHOWN.split("\n", 1)[1])
    assert ours is not None
    assert ours.ours
    assert not Qdisc("htb", "1:", "r2q 10 default 0x10").restorable
    assert not Qdisc("tbf", "1:", "rate 1Mbit\nexec x").restorable  # tc would not show that
    assert root_qdisc("") is None
    assert root_qdisc("qdisc ingress ffff: parent ffff:fff1 ----") is None


def test_counts_are_read() -> None:
    classes = """\
class htb 4a46:1 root leaf 4a47: prio 0 rate 100Gbit ceil 100Gbit burst 0b cburst 0b
 Sent 7827376 bytes 5176 pkt (dropped 0, overlimits 0 requeues 0)
 backlog 0b 0p requeues 0
 lended: 2160 borrowed: 0 giants: 0

class tbf 4a47:1 parent 4a47:
"""
    qdiscs = """\
qdisc htb 4a46: root refcnt 2 r2q 10 default 0 direct_packets_stat 4 direct_qlen 1000
 Sent 1 bytes 1 pkt (dropped 9, overlimits 0 requeues 0)
qdisc tbf 4a47: parent 4a46:1 rate 20Mbit burst 3036b lat 10s
 Sent 7827376 bytes 5176 pkt (dropped 3, overlimits 0 requeues 0)
"""
    assert passed(classes, qdiscs) == {"4a46:1": {"bytes": 7827376, "frames": 5176, "dropped": 3}}
