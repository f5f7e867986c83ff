"""Detections of a clip on disk: what is written is read, in the same bytes, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jellyfish.detections import Detections
from jellyfish.errors import DataError
from jellyfish.files.clip_detections import (
    ClipDetections,
    read_clip_detections,
    write_clip_detections,
)


def clip(counts: list[int], seed: int = 1) -> ClipDetections:
    rng = np.random.default_rng(seed)
    frames = tuple(
        Detections(
            boxes=rng.random((n, 4), np.float32),
            scores=np.sort(rng.random(n, np.float32))[::-1].copy(),
            classes=rng.integers(0, 80, n, np.int32),
        )
        for n in counts
    )
    return ClipDetections(frames, rng.integers(1000, 9000, len(counts)), 768, 576)


def test_every_frame_comes_back(tmp_path: Path) -> None:
    written = clip([3, 0, 1, 0])
    write_clip_detections(tmp_path / "a.npz", written)
    read = read_clip_detections(tmp_path / "a.npz")
    assert (len(read), read.width, read.height) == (4, 768, 576)
    assert read.frame_bytes.tolist() == written.frame_bytes.tolist()
    for before, after in zip(written.frames, read.frames, strict=True):
        for name in ("boxes", "scores", "classes"):
            was, now = getattr(before, name), getattr(after, name)
            assert now.dtype == was.dtype
            assert (now == was).all()


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_a_clip_in_which_nothing_is_found(tmp_path: Path, counts: list[int]) -> None:
    write_clip_detections(tmp_path / "a.npz", clip(counts))
    read = read_clip_detections(tmp_path / "a.npz")
    assert [len(frame) for frame in read.frames] == counts


def test_equal_values_are_equal_bytes_in_a_compact_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        write_clip_detections(path, clip([8] * 240))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 24 * 8 * 240 + 2000


def test_a_frame_without_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 frames, frame_bytes \(1,\)"):
        ClipDetections((Detections.none(),) * 2, np.array([5]), 1, 1)


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "320.npz"
    with pytest.raises(DataError, match=r"320\.npz is missing"):
        read_clip_detections(path)
    for content in (b"", b"[]", b"PK\x03\x04 no archive"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"320\.npz holds no detections of a clip"):
            read_clip_detections(path)
    write_clip_detections(path, clip([3, 2]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"320\.npz holds no detections of a clip"):
        read_clip_detections(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("offsets", np.array([0, 3, 2]), "offsets do not ascend"),
        ("offsets", np.array([0, 3, 4]), "is not that of the offsets"),
        ("frame_bytes", np.array([5]), "2 frames, frame_bytes"),
        ("boxes", np.zeros((5, 4)), "boxes is float64"),
        ("scores", np.array([None] * 5), "allow_pickle"),
        ("classes", None, "classes"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, name: str, value: np.ndarray | None, said: str
) -> None:
    path = tmp_path / "320.npz"
    write_clip_detections(path, clip([3, 2]))
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=said):
        read_clip_detections(path)
