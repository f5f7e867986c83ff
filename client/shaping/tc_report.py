"""What tc counted, out of what it prints; older versions have no JSON for htb classes."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HEAD = re.compile(
    r"^(class|qdisc) \S+ ([0-9a-f]+:[0-9a-f]*) (?:dev \S+ )?(?:parent ([0-9a-f:]+))?"
)
_SENT = re.compile(r"Sent (\d+) bytes (\d+) pkt \(dropped (\d+),")


def passed(classes: str, qdiscs: str) -> dict[str, dict[str, int]]:
    """Return bytes and frames that each class passed, and what its queue dropped, by class.

    Args:
        classes: what `tc -s class show` prints.
        qdiscs: what `tc -s qdisc show` prints.
    """
    counts = {
        name: {"bytes": sent, "frames": frames, "dropped": dropped}
        for name, _, (sent, frames, dropped) in _entries(classes)
    }
    for _, parent, (_, _, dropped) in _entries(qdiscs):
        if parent in counts:
            counts[parent]["dropped"] += dropped
    return counts


def _entries(shown: str) -> Iterator[tuple[str, str | None, tuple[int, int, int]]]:
    head: re.Match[str] | None = None
    for line in shown.splitlines():
        if (found := _HEAD.match(line)) is not None:
            head = found
        elif head is not None and (sent := _SENT.search(line)) is not None:
            yield head[2], head[3], (int(sent[1]), int(sent[2]), int(sent[3]))
            head = None
