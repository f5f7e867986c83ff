"""Answers to frames, as they are scored: matched with the reference's, each different one once.

A simulated run keeps no detections: its rows say which frame of the clip was seen at which size,
and what a DNN finds in that frame is stored once and for all. A measured run keeps what came back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiment.grid import Config
from experiment.paths import detections_path, zoo_of
from jellyfish.detections import Detections
from jellyfish.errors import DataError
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.files.detections import image_id, read_coco
from jellyfish.matching import MATCHINGS, Counts, Rule
from jellyfish.ranking import Ranking

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """A different answers, each to a frame of a clip.

    Args:
        counts: per matching, (A,) each.
        detected: (A,) whether anything was found, of any class.
        ranking: for average precision.
    """

    counts: Mapping[str, Counts]
    detected: NDArray[np.bool_]
    ranking: Ranking

    @classmethod
    def of(
        cls, found: Sequence[Detections], reference: Sequence[Detections], rule: Rule
    ) -> Answers:
        """Match `found` with `reference`, A each, in the same order."""
        return cls(
            counts={name: match(found, reference, rule) for name, match in MATCHINGS.items()},
            detected=np.array([len(answer) > 0 for answer in found], bool),
            ranking=Ranking.of(found, reference, rule),
        )

    def __len__(self) -> int:
        return len(self.detected)


@lru_cache(maxsize=2)
def joined(parts: tuple[Answers, ...]) -> Answers:
    """Return the answers of all `parts`, numbered one part after another."""
    if len(parts) == 1:
        return parts[0]
    return Answers(
        counts={name: Counts.joined([part.counts[name] for part in parts]) for name in MATCHINGS},
        detected=np.concatenate([part.detected for part in parts]),
        ranking=Ranking.joined([part.ranking for part in parts]),
    )


def came_back(
    frames: pd.DataFrame,
    in_time: NDArray[np.bool_],
    path: Path,
    reference: Sequence[Detections],
    rule: Rule,
) -> Answers:
    """Return one answer a row: what the file at `path` holds for it, or nothing.

    Args:
        frames: (F,) rows of a measured run.
        in_time: (F,) which of them have an answer that counts.
        path: the run's detections.json.
        reference: what the reference DNN finds, frame by frame of the clip.
        rule: what is scored.

    Raises:
        DataError: the file is missing, damaged or has detections of a frame that is no row.
    """
    answers = read_coco(path)
    images = [image_id(c, f) for c, f in zip(frames["client"], frames["frame"], strict=True)]
    if unknown := set(answers) - set(images):
        raise DataError(f"{path} has image {min(unknown)}, which no frame has")
    none = Detections.none()
    found = [answers.get(k, none) if ok else none for k, ok in zip(images, in_time, strict=True)]
    return Answers.of(found, [reference[k] for k in frames["clip_frame"]], rule)


class ClipAnswers:
    """All that emulated devices can answer to the F frames of a clip; and, before it, nothing.

    Args:
        by_px: (F,) what each DNN finds, by its input size.
        reference: (F,) what the reference DNN finds.
        rule: what is scored.
    """

    def __init__(
        self,
        by_px: Mapping[int, Sequence[Detections]],
        reference: Sequence[Detections],
        rule: Rule,
    ) -> None:
        self._frames = len(reference)
        self._px = np.array(sorted(by_px), np.int64)
        found = [[Detections.none()] * self._frames, *(by_px[px] for px in self._px.tolist())]
        self.answers = Answers.of(
            [frame for frames in found for frame in frames], list(reference) * len(found), rule
        )

    def given(self, frames: pd.DataFrame, in_time: NDArray[np.bool_], path: Path) -> IntArray:
        """Return (F,) which of `answers` each row got.

        Emulated devices answer with what the DNN finds, or with what the largest DNN finds for
        which the frame was not sent too small (`jellyfish.emulation.EmulatedAnswers`).

        Args:
            frames: rows of a simulated run, read from `path`.
            in_time: which of them have an answer that counts; the others got nothing.

        Raises:
            DataError: a row has an answer, but from no DNN.
        """
        seen_px = np.minimum(frames["dnn_px"].to_numpy(), frames["px_sent"].to_numpy())
        place = np.searchsorted(self._px, seen_px, side="right")
        if (in_time & (place == 0)).any():
            raise DataError(f"{path} has a frame that was answered, but does not say by which DNN")
        clip_frame = frames["clip_frame"].to_numpy(np.int64)
        given: IntArray = np.where(in_time, place, 0) * self._frames + clip_frame
        return given


class StoredDetections:
    """What the DNNs of the config's zoo find in its clips; each file is read once.

    Args:
        config, results, root: whose, and where they lie.
        rule: what is scored.
    """

    def __init__(self, config: Config, results: Path, root: Path, rule: Rule) -> None:
        self.config, self.results, self.root, self.rule = config, results, root, rule
        self.zoo = zoo_of(config, root)
        self._references: dict[str, Sequence[Detections]] = {}
        self._answers: dict[str, ClipAnswers] = {}

    def reference(self, clip: str) -> Sequence[Detections]:
        """Return what the reference DNN finds in the frames of `clip`.

        Raises:
            DataError: the file is missing or damaged.
        """
        if clip not in self._references:
            self._references[clip] = self._read(clip, self.zoo.reference_px)
        return self._references[clip]

    def answers(self, clip: str) -> ClipAnswers:
        """Return what all DNNs find in the frames of `clip`.

        Raises:
            DataError: a file is missing or damaged, or has other frames than the reference's.
        """
        if clip not in self._answers:
            by_px = {px: self._read(clip, px) for px in self.zoo.input_px}
            reference = self.reference(clip)
            for px, frames in by_px.items():
                if len(frames) != len(reference):
                    raise DataError(
                        f"{self.path(clip, px)} has {len(frames)} frames, the reference "
                        f"{len(reference)}; remove it and run again"
                    )
            self._answers[clip] = ClipAnswers(by_px, reference, self.rule)
        return self._answers[clip]

    def path(self, clip: str, px: int) -> Path:
        """Return where those of the DNN at `px` lie."""
        return detections_path(self.config, clip, px, self.results)

    def _read(self, clip: str, px: int) -> Sequence[Detections]:
        return read_clip_detections(self.path(clip, px)).frames
