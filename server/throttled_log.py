"""A log that a fault which stays cannot fill."""

from __future__ import annotations

import asyncio
import logging

log = logging.getLogger("server")

SAID_AT_ONCE = 6  # lines, before there are fewer
LONGEST_SILENCE_S = 32.0
CALM_S = 60.0  # after so long without trouble, it may speak up at once again


class ThrottledLog:
    """Logs the first few lines of one part of the server at once, then ever more rarely.

    Args:
        who: the part, as lines begin.
        level: of its lines.
    """

    def __init__(self, who: str, level: int = logging.ERROR) -> None:
        self._who, self._level = who, level
        self._clock = asyncio.get_running_loop().time
        self._said, self._left_out = 0, 0
        self._at_s, self._gap_s = float("-inf"), 0.0

    def tell(self, text: str) -> None:
        """Log `text`, or only count it where much was said lately."""
        since_s = self._clock() - self._at_s
        if since_s > CALM_S:
            self._said, self._gap_s = 0, 0.0
        if since_s < self._gap_s:
            self._left_out += 1
            return
        more = f" ({self._left_out} lines of late left out)" if self._left_out else ""
        log.log(self._level, "%s: %s%s", self._who, text, more)
        self._at_s, self._left_out = self._clock(), 0
        self._said += 1
        if self._said >= SAID_AT_ONCE:
            self._gap_s = min(LONGEST_SILENCE_S, max(1.0, 2 * self._gap_s))
