"""A client's link: two FIFOs whose rate follows a trace, and what can befall them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from experiment.virtual_time import VirtualTimeLoop
from jellyfish.trace import Trace

Deliver = Callable[[], None]

DOWN = Trace(name="down", mbps=(100.0,), step_s=1.0)


class _Message:
    """One on its way."""

    __slots__ = ("begins_s", "bits", "deliver", "leaves_s", "owner", "timer")

    def __init__(self, bits: float, deliver: Deliver, owner: object) -> None:
        self.bits, self.deliver, self.owner = bits, deliver, owner
        self.begins_s = self.leaves_s = inf  # first and last bit onto the link
        self.timer: asyncio.TimerHandle | None = None


class Direction:
    """Bytes one way: messages in order, each there when its last bit has left, and a delay.

    Args:
        trace: the rate, from the loop's 0 s on.
        delay_s: propagation.
    """

    def __init__(self, loop: VirtualTimeLoop, trace: Trace, delay_s: float) -> None:
        self._loop, self._trace, self._delay_s = loop, trace, delay_s
        self._under_way: deque[_Message] = deque()
        self._free_s = 0.0  # from when on the link is; inf while it is cut
        self._share = 1.0
        self.delayed = 0  # messages that found the link cut or slowed

    @property
    def waiting(self) -> int:
        return len(self._on_link())

    def _on_link(self) -> list[_Message]:
        now_s = self._loop.time()
        return [message for message in self._under_way if message.leaves_s > now_s]

    def send(self, size: int, deliver: Deliver, owner: object = None) -> None:
        """Put a message of `size` bytes on the link, which `owner` can have dropped."""
        if self._share < 1.0:
            self.delayed += 1
        message = _Message(size * 8.0, deliver, owner)
        self._under_way.append(message)
        self._schedule(message)

    def _schedule(self, message: _Message) -> None:
        message.begins_s = max(self._free_s, self._loop.time())
        if not self._share:
            self._free_s = message.leaves_s = inf
            return
        leaves_s = self._trace.departure(message.begins_s, message.bits / self._share)
        self._free_s = message.leaves_s = leaves_s
        message.timer = self._loop.call_at(leaves_s + self._delay_s, self._arrive)

    def _arrive(self) -> None:
        self._under_way.popleft().deliver()  # the first: a stalled loop may come in any order

    def set_share(self, share: float) -> None:
        """Let only a share of the rate through, 0 to 1, from now on."""
        waiting = self._on_link()
        if share < 1.0:
            self.delayed += len(waiting)
        self._note_progress(waiting)
        self._share = share
        self._again(waiting)

    def drop(self, owner: object) -> int:
        """Forget what is under way of `owner`; return how many messages that were."""
        waiting = self._on_link()
        self._note_progress(waiting)
        mine = [message for message in waiting if message.owner is owner]
        for message in mine:
            self._under_way.remove(message)
            if message.timer is not None:
                message.timer.cancel()
        if mine:
            self._again([message for message in waiting if message.owner is not owner])
        return len(mine)

    def _note_progress(self, waiting: list[_Message]) -> None:
        """Take off the first what of it has left already."""
        now_s = self._loop.time()
        if waiting and (first := waiting[0]).begins_s < now_s:
            passed = self._trace.bits_until(now_s) - self._trace.bits_until(first.begins_s)
            first.bits = max(0.0, first.bits - passed * self._share)

    def _again(self, waiting: list[_Message]) -> None:
        """Schedule what is on the link anew, from now on."""
        self._free_s = 0.0
        for message in waiting:
            if message.timer is not None:
                message.timer.cancel()
                message.timer = None
            self._schedule(message)


class Link:
    """One client's network: up, down, and whether the client takes what arrives."""

    def __init__(self, loop: VirtualTimeLoop, trace: Trace, delay_s: float) -> None:
        self.up = Direction(loop, trace, delay_s)
        self.down = Direction(loop, DOWN, delay_s)
        self.window_open = True  # of the client, for what the server writes
        self._openings: list[Callable[[], None]] = []

    def set_window(self, is_open: bool) -> None:
        self.window_open = is_open
        if is_open:
            openings, self._openings = self._openings, []
            for opening in openings:
                opening()

    def when_open(self, callback: Callable[[], None]) -> None:
        self._openings.append(callback)
