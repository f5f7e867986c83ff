"""Frames of a looped video: the right ones, at the right size, without waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from client.source import READ_AHEAD, Image, SourceFrame, VideoSource, encode
from jellyfish.errors import DataError

FRAMES, WIDTH, HEIGHT = 12, 96, 64


def picture(number: int) -> Image:
    """A frame that tells its number by its grey."""
    return np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"HFYU"), 10, (WIDTH, HEIGHT))
    for number in range(FRAMES):
        writer.write(picture(number))
    writer.release()
    return path


@pytest.fixture
def source(clip: Path) -> Iterator[VideoSource]:
    video = VideoSource("clip", clip)
    video.start()
    yield video
    video.close()


def soon(source: VideoSource, k: int, px: int = 32) -> SourceFrame:
    deadline = time.monotonic() + 10
    while (frame := source.frame(k, px)) is None:
        assert time.monotonic() < deadline, f"tick {k} never came"
        time.sleep(0.001)
    return frame


def grey(frame: SourceFrame) -> float:
    image = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return float(image.mean())


def test_ticks_show_the_looped_clip(source: VideoSource) -> None:
    for k in range(3 * FRAMES):
        frame = soon(source, k)
        assert frame.clip_frame == source.clip_frame(k) == k % FRAMES
        assert frame.tag == f"clip:{k % FRAMES}".encode()
        assert grey(frame) == pytest.approx(20 * (k % FRAMES), abs=2)


def test_ticks_may_be_left_out(source: VideoSource) -> None:
    for k in (0, 1, 5, 20, 21, 50):
        assert grey(soon(source, k)) == pytest.approx(20 * (k % FRAMES), abs=2)


def test_asking_never_waits_nor_goes_back(source: VideoSource) -> None:
    assert source.frame(10 * FRAMES, 32) is None  # far ahead of the reader
    frame = soon(source, 10 * FRAMES)
    assert frame.clip_frame == 0
    assert source.frame(3, 32) is None  # gone by


def test_size_is_the_clip_s_and_frames_are_what_was_asked_for(source: VideoSource) -> None:
    assert (source.frames, source.width, source.height) == (FRAMES, WIDTH, HEIGHT)
    image = cv2.imdecode(np.frombuffer(soon(source, 0, 48).image, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (48, 48, 3)


def test_encoding_resizes_bilinearly_at_quality_90() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    resized = cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR)
    done, expected = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    assert encode(image, 32) == bytes(expected)


def test_close_ends_the_reader_whatever_it_does(clip: Path) -> None:
    for wait_s in (0, 0.05):  # while it reads; while it waits for room
        video = VideoSource("clip", clip)
        video.start()
        time.sleep(wait_s)
        video.close()
        assert not video._thread.is_alive()
    assert READ_AHEAD < FRAMES
    VideoSource("clip", clip).close()  # never started


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "cut short"])
def test_an_unusable_video_is_named(tmp_path: Path, clip: Path, kind: str) -> None:
    path = tmp_path / "bad.avi"
    if kind == "text":
        path.write_text("no video at all\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "cut short":
        data = clip.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=str(path)):
        VideoSource("bad", path).start()


def test_damage_behind_the_start_is_an_error_at_its_tick(tmp_path: Path, clip: Path) -> None:
    video = VideoSource("clip", clip)
    video.start()
    try:
        video.frames = FRAMES + 1  # as a header that promises more than there is
        for k in range(FRAMES):
            soon(video, k)
        with pytest.raises(DataError, match=f"frame {FRAMES} does not decode"):
            soon(video, FRAMES)
    finally:
        video.close()
