from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from experiment.paths import clip_path
from jellyfish.errors import DataError
from scripts.clips import cut, main


def frames(path: Path) -> list[NDArray[np.uint8]]:
    source = cv2.VideoCapture(str(path))
    found = []
    while (read := source.read())[0]:
        found.append(read[1])
    source.release()
    return found


@pytest.fixture(scope="module")
def video(assets: Path) -> Path:
    return assets / "videos" / "vtest.avi"


def test_a_clip_is_the_video_frame_for_frame(video: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clips" / "a.avi"
    cut(video, 5, 7, clip)
    original, copied = frames(video)[5:12], frames(clip)
    assert len(copied) == 7
    assert all((a == b).all() for a, b in zip(original, copied, strict=True))
    assert [p.name for p in clip.parent.iterdir()] == ["a.avi"]


def test_a_clip_by_its_name_in_the_config(video: Path, tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "data" / "videos"
    folder.mkdir(parents=True)
    (folder / "vtest.avi").symlink_to(video)
    config = {"assets": "config/assets.yaml", "clips": {"a": {"asset": "vtest", "first": 0}}}
    config["clips"]["a"]["frames"] = 2  # type: ignore[index]
    assert main(config, "a", root, tmp_path) == clip_path(config, "a", tmp_path)
    assert len(frames(clip_path(config, "a", tmp_path))) == 2


def test_a_video_too_short_is_named_with_the_frame(video: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vtest\.avi ends.* at frame 795; .* frames 790 to 799"):
        cut(video, 790, 10, tmp_path / "a.avi")
    with pytest.raises(DataError, match="at frame 795"):
        cut(video, 900, 10, tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())


def test_a_video_cut_short_is_named(video: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.avi"
    broken.write_bytes(video.read_bytes()[:1_000_000])
    with pytest.raises(DataError, match=r"broken\.avi ends, or cannot be decoded, at frame \d+"):
        cut(broken, 0, 240, tmp_path / "a.avi")


@pytest.mark.parametrize("content", [b"", b"no video" * 1000])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.avi"
    broken.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.avi cannot be decoded"):
        cut(broken, 0, 1, tmp_path / "a.avi")
    with pytest.raises(DataError, match=r"missing\.avi is missing"):
        cut(tmp_path / "missing.avi", 0, 1, tmp_path / "a.avi")
    assert [p.name for p in tmp_path.iterdir()] == ["broken.avi"]
