"""Which client a worker died of: those of its last batch run alone for a while.

A frame that kills workers (a decoder's bug, a bomb) would otherwise take the frames of others with
it, GPU after GPU. Who was alone when a worker died again, which had just served a probe, is put
out.
"""

from __future__ import annotations

FIRST_ALONE, AGAIN_ALONE, MOST_ALONE = 3, 4, 48  # frames; times so many each time; at most
FORGIVEN_S = 300.0  # a client that no worker died of for so long


class Suspicion:
    """What workers' deaths say of one client."""

    def __init__(self) -> None:
        self._alone = 0  # frames that it must yet run alone
        self._next = FIRST_ALONE
        self._died_s = float("-inf")

    def __bool__(self) -> bool:
        """Whether the client's frames must run alone."""
        return self._alone > 0

    def worker_died(self, now_s: float) -> None:
        """Take in that a worker died while it ran frames of this client."""
        if now_s - self._died_s > FORGIVEN_S:
            self._next = FIRST_ALONE
        self._died_s = now_s
        self._alone = self._next
        self._next = min(MOST_ALONE, AGAIN_ALONE * self._next)

    def survived(self, frames: int) -> None:
        """Take in that a worker ran `frames` frames of this client, and lives."""
        self._alone = max(0, self._alone - frames)
