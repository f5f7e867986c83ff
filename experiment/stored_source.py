"""A clip as an emulated client streams it: which frame it is and what it weighs, not its pixels."""

from __future__ import annotations

from collections.abc import Mapping

from client.source import SourceFrame
from jellyfish.errors import DataError
from jellyfish.files.clip_detections import ClipDetections


class StandIn(bytes):
    """Bytes that are as long as a JPEG and hold nothing: thousands of them weigh nothing here."""

    def __new__(cls, length: int) -> StandIn:
        """Return a stand-in for `length` bytes."""
        self = super().__new__(cls)
        self._length = length
        return self

    _length: int

    def __len__(self) -> int:
        return self._length


class StoredSource:
    """A clip, looped, with the true size of each frame's JPEG (see `client.source.Source`).

    Args:
        name: the clip's name, for tags.
        sizes: per input size in px, what was found in the clip and what its frames weigh.

    Raises:
        DataError: there is no size, or the sizes disagree on the number of frames.
    """

    def __init__(self, name: str, sizes: Mapping[int, ClipDetections]) -> None:
        lengths = {len(clip.frames) for clip in sizes.values()}
        if len(lengths) != 1 or lengths == {0}:
            raise DataError(f"clip {name}: {sorted(lengths)} frames, depending on the input size")
        self._name, self.frames = name, lengths.pop()
        first = next(iter(sizes.values()))
        self.width, self.height = first.width, first.height
        self._made: dict[int, list[SourceFrame]] = {
            px: self._frames(clip) for px, clip in sizes.items()
        }

    def start(self) -> None:
        """Do nothing: everything is at hand."""

    def clip_frame(self, k: int) -> int:
        """Return which frame of the looped clip tick `k` shows."""
        return k % self.frames

    def frame(self, k: int, px: int) -> SourceFrame:
        """Return tick `k` at px x px.

        Raises:
            DataError: nothing is stored at that size.
        """
        made = self._made.get(px)
        if made is None:
            raise DataError(f"clip {self._name} has no stored frames of {px} px")
        return made[k % self.frames]

    def close(self) -> None:
        """Do nothing."""

    def _frames(self, clip: ClipDetections) -> list[SourceFrame]:
        return [
            SourceFrame(f"{self._name}:{number}".encode(), StandIn(int(size)), number)
            for number, size in enumerate(clip.frame_bytes.tolist())
        ]
