"""A queue of frames in the policy's order, which throws out the hopeless ones by itself."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from math import isinf

from server.clients import ClientHandle, Pending

_GRAIN_S = 0.001  # loops wake up to a millisecond early


def _by_deadline(pending: Pending) -> tuple[float, int]:
    return pending.deadline_s, pending.order


def _by_arrival(pending: Pending) -> int:
    return pending.order


class FrameQueue:
    """Frames that wait, in the order in which they should run.

    Args:
        order: `edf` or `fifo`.
        expire: called with each frame that has become hopeless, at that very moment; None to
            keep such frames until someone looks.

    A frame is hopeless `lead_s` before its deadline (after it, when negative).
    """

    def __init__(self, order: str, expire: Callable[[Pending], None] | None) -> None:
        self._key: Callable[[Pending], tuple[float, int] | int]
        self._key = _by_deadline if order == "edf" else _by_arrival
        self._expire = expire
        self._frames: list[Pending] = []
        self._lead_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._frames)

    def __getitem__(self, position: int) -> Pending:
        return self._frames[position]

    def put(self, pending: Pending) -> None:
        """Add a frame."""
        insort(self._frames, pending, key=self._key)
        self._look_by(pending.deadline_s)

    def pick(self, positions: Sequence[int]) -> list[Pending]:
        """Remove and return the frames at `positions`."""
        picked = [self._frames[i] for i in positions]
        if picked:
            gone = set(positions)
            self._frames = [p for i, p in enumerate(self._frames) if i not in gone]
            if not self._frames:
                self._disarm()
        return picked

    def remove(self, client: ClientHandle) -> list[Pending]:
        """Remove and return the frames of `client`."""
        return self.pick([i for i, p in enumerate(self._frames) if p.client is client])

    def clear(self) -> list[Pending]:
        """Remove and return all frames."""
        return self.pick(range(len(self._frames)))

    def set_lead(self, lead_s: float) -> None:
        """Set how long before its deadline a frame is hopeless."""
        if lead_s != self._lead_s:
            self._lead_s = lead_s
            self._disarm()
            self._arm()

    def _arm(self) -> None:
        if self._frames:
            self._look_by(min(p.deadline_s for p in self._frames))

    def _look_by(self, deadline_s: float) -> None:
        """Have `_due` called when a frame with this deadline is hopeless, or before.

        A timer that is due earlier stays, for frames that may have run: to move it with every
        frame would cost more than to look in vain now and then.
        """
        if self._expire is None or isinf(self._lead_s):  # never hopeless, whatever time it is
            return
        at_s = deadline_s - self._lead_s
        if self._timer is None or at_s < self._timer_s:
            self._disarm()
            self._timer_s = at_s
            self._timer = self._loop.call_at(at_s, self._due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        limit_s = self._loop.time() + self._lead_s + _GRAIN_S
        late = self.pick([i for i, p in enumerate(self._frames) if p.deadline_s <= limit_s])
        self._arm()
        assert self._expire is not None
        for pending in late:
            self._expire(pending)
