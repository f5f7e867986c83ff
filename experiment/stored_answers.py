"""The detections of a simulated run as a file: on demand, since its rows say all that is needed."""

from __future__ import annotations

from pathlib import Path

from experiment.grid import Config, Run
from experiment.paths import ROOT, needed, run_folder, zoo_of
from experiment.simulation import stored_sizes
from jellyfish.detections import Detections
from jellyfish.emulation import EmulatedAnswers
from jellyfish.errors import DataError
from jellyfish.files.detections import image_id, write_coco
from jellyfish.files.tables import read_table
from jellyfish.records import Outcome

_COLUMNS = ("client", "frame", "clip_frame", "px_sent", "dnn_px", "outcome")


def write_detections(
    config: Config, run: Run, results: Path, path: Path, root: Path = ROOT
) -> Path:
    """Write to `path` what came back to the clients of `run`, in time or not: COCO results.

    As a measured run's detections.json.

    Raises:
        DataError: the run or the stored detections are missing, or the run's rows are of frames
            that these do not have; the text names the file.
    """
    table = needed(run_folder(run.key, results) / "frames.parquet")
    sizes = stored_sizes(config, run.clip, zoo_of(config, root).input_px, results)
    answers = EmulatedAnswers({run.clip: sizes})
    found: dict[int, Detections] = {}
    for row in read_table(table, _COLUMNS).to_pylist():
        if row["outcome"] in (Outcome.OK, Outcome.LATE):
            tag = f"{run.clip}:{row['clip_frame']}".encode()
            answer = answers.answer(tag, row["dnn_px"], row["px_sent"])
            if isinstance(answer, str):
                raise DataError(f"{table}: {answer}")
            found[image_id(row["client"], row["frame"])] = answer
    first = next(iter(sizes.values()))
    write_coco(path, found, first.width, first.height)
    return path
