"""Frame sources: what a device's camera shows at each tick."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from jellyfish.errors import DataError

Image = NDArray[np.uint8]
JPEG_QUALITY = 90
READ_AHEAD = 8  # decoded frames kept in hand


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One frame, ready to send."""

    tag: bytes  # CLIP:FRAME, for an emulated device
    image: bytes
    clip_frame: int  # from 0


class Source(Protocol):
    """Where frames come from. Ticks are asked for in ascending order; some may be left out."""

    def start(self) -> None:
        """Make ready.

        Raises:
            DataError: there is nothing to show.
        """

    def clip_frame(self, k: int) -> int:
        """Return which frame of the looped clip tick `k` shows."""

    def frame(self, k: int, px: int) -> SourceFrame | None:
        """Return tick `k` at `px` x `px`, without waiting; None when it is not at hand yet.

        Raises:
            DataError: the source has failed.
        """

    def close(self) -> None:
        """Free all resources."""


def encode(image: Image, px: int) -> bytes:
    """Return `image` (height, width, 3) resized bilinearly to px x px, as JPEG."""
    if image.shape[:2] != (px, px):
        image = np.asarray(cv2.resize(image, (px, px), interpolation=cv2.INTER_LINEAR), np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise DataError(f"cannot encode a frame at {px} px")
    return bytes(data)


class VideoSource:
    """A video file, looped; a thread decodes ahead of the ticks.

    Args:
        name: the clip's name, for tags.
        path: a video that OpenCV can read.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._video: cv2.VideoCapture | None = None
        self._ahead: queue.Queue[tuple[int, Image | DataError]] = queue.Queue(READ_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"read {path.name}", daemon=True)
        self._held: tuple[int, Image] | None = None  # taken from the queue, for a later tick
        self.frames, self.width, self.height = 0, 0, 0

    def start(self) -> None:
        """Open the video, check that its first and last frame decode, and read ahead.

        Raises:
            DataError: it is missing, no video, empty or cut short.
        """
        if not self._path.is_file():
            raise DataError(f"video {self._path} is missing")
        self._video = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self.frames = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        if not self._video.isOpened() or self.frames < 1:
            raise DataError(f"{self._path} cannot be decoded as a video")
        for wanted in (self.frames - 1, 0):
            self._video.set(cv2.CAP_PROP_POS_FRAMES, wanted)
            decoded, image = self._video.read()
            if not decoded:
                raise DataError(
                    f"video {self._path}: frame {wanted} of {self.frames} cannot be decoded; "
                    "the file is damaged or cut short"
                )
            self.height, self.width = image.shape[:2]
        self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
        self._thread.start()

    def clip_frame(self, k: int) -> int:
        """Return which frame of the looped clip tick `k` shows."""
        return k % self.frames

    def frame(self, k: int, px: int) -> SourceFrame | None:
        """Return tick `k` at px x px, or None; see `Source.frame`."""
        image = self._image(k)
        if image is None:
            return None
        number = self.clip_frame(k)
        return SourceFrame(f"{self._name}:{number}".encode(), encode(image, px), number)

    def close(self) -> None:
        """Stop reading and close the file."""
        self._closed.set()
        if self._thread.is_alive():
            while not self._ahead.empty():  # the reader may wait for room
                self._ahead.get_nowait()
            self._thread.join()
        if self._video is not None:
            self._video.release()
            self._video = None

    def _image(self, k: int) -> Image | None:
        while self._held is None or self._held[0] < k:
            try:
                tick, image = self._ahead.get_nowait()
            except queue.Empty:
                return None
            if isinstance(image, DataError):
                raise image
            self._held = tick, image
        return self._held[1] if self._held[0] == k else None

    def _read(self) -> None:
        tick = 0
        while not self._closed.is_set():
            item = self._next(tick)
            self._ahead.put((tick, item))
            if isinstance(item, DataError):
                return
            tick += 1

    def _next(self, tick: int) -> Image | DataError:
        assert self._video is not None
        if tick and self.clip_frame(tick) == 0:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
        decoded, image = self._video.read()
        if not decoded:
            return DataError(f"video {self._path}: frame {self.clip_frame(tick)} does not decode")
        return np.asarray(image, np.uint8)
