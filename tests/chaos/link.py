"""A client's link: two FIFOs whose rate follows a trace, and what can befall them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from experiment.virtual_time import VirtualTimeLoop
from jellyfish.trace import Trace

Deliver = Callable[[], None]

DOWN = Trace(name="down", mbps=(100.0,), step_s=1.0)


class Direction:
    """Bytes one way: messages in order, each there when its last bit has left, and a delay.

    Args:
        trace: the rate, from the loop's 0 s on.
        delay_s: propagation.
    """

    def __init__(self, loop: VirtualTimeLoop, trace: Trace, delay_s: float) -> None:
        self._loop, self._trace, self._delay_s = loop, trace, delay_s
        self._queue: deque[tuple[float, Deliver, object]] = deque()  # bits left, what then, whose
        self._timer: asyncio.TimerHandle | None = None
        self._since_s = 0.0  # the first in the queue is on the link since then
        self._share = 1.0
        self.delayed = 0  # messages that found the link cut or slowed

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def send(self, size: int, deliver: Deliver, owner: object = None) -> None:
        """Put a message of `size` bytes on the link, which `owner` can have dropped."""
        if self._share < 1.0:
            self.delayed += 1
        self._queue.append((size * 8.0, deliver, owner))
        if len(self._queue) == 1:
            self._since_s = self._loop.time()
            self._arm()

    def set_share(self, share: float) -> None:
        """Let only a share of the rate through, 0 to 1, from now on."""
        if self._queue:
            if share < 1.0:
                self.delayed += len(self._queue)
            now_s = self._loop.time()
            passed = self._trace.bits_until(now_s) - self._trace.bits_until(self._since_s)
            bits, deliver, owner = self._queue[0]
            self._queue[0] = max(0.0, bits - passed * self._share), deliver, owner
            self._since_s = now_s
        self._share = share
        self._arm()

    def drop(self, owner: object) -> int:
        """Forget what is under way of `owner`; return how many messages that were."""
        kept = [entry for entry in self._queue if entry[2] is not owner]
        dropped = len(self._queue) - len(kept)
        if dropped:
            self._queue = deque(kept)
            self._since_s = self._loop.time()
            self._arm()
        return dropped

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and self._share > 0:
            bits = self._queue[0][0] / self._share
            at_s = self._trace.departure(self._since_s, bits)
            self._timer = self._loop.call_at(at_s, self._left)

    def _left(self) -> None:
        self._timer = None
        _, deliver, _ = self._queue.popleft()
        self._loop.call_later(self._delay_s, deliver)
        self._since_s = self._loop.time()
        self._arm()


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
