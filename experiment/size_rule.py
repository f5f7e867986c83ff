"""How far off the rule is by which emulated devices answer frames that were sent too small.

They answer with what the DNN of the smaller size found; a real DNN would see the frame scaled up.
"""

from __future__ import annotations

import csv
from pathlib import Path

from client.source import encode
from experiment.detections import find, reference_device
from experiment.frames import images
from experiment.grid import Config, accuracy_key
from experiment.paths import ROOT, clip_path, detections_path, needed, zoo_of
from experiment.progress import progress
from jellyfish.detections import Detections
from jellyfish.files.atomic import whole_file
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.matching import Rule, strict

PAIRS = 5
STEPS_UP = 3  # sizes between what is sent and what the DNN takes
COLUMNS = ("sent_px", "dnn_px", "f1_scaled_up", "f1_rule", "error")


def pairs(input_px: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return up to five pairs (px sent, px of the DNN), spread over the zoo."""
    up = min(STEPS_UP, len(input_px) - 1)
    starts = range(len(input_px) - up) if up else range(0)
    count = min(PAIRS, len(starts))
    chosen = [starts[i * (len(starts) - 1) // max(count - 1, 1)] for i in range(count)]
    return [(input_px[i], input_px[i + up]) for i in chosen]


def measure_size_rule(config: Config, results: Path, root: Path = ROOT) -> Path:
    """Score both answers on the profile clip; return the path of the table, a CSV.

    One row a pair of sizes: strict F1 against the reference of the DNN that sees the frame scaled
    up, that of the rule, and the rule's less the true one.

    Raises:
        DataError: clip, model or detections are missing.
    """
    clip, zoo = config["profile"]["clip"], zoo_of(config, root)
    rule = Rule.from_config(config["scoring"], zoo.labels)

    def stored(px: int) -> tuple[Detections, ...]:
        return read_clip_detections(needed(detections_path(config, clip, px, results))).frames

    truth = stored(zoo.reference_px)
    rows = []
    for sent, dnn in pairs(zoo.input_px):
        scaled_up = strict(_scaled_up(config, sent, dnn, results, root), truth, rule).f1
        by_rule = strict(stored(sent), truth, rule).f1
        rows.append((sent, dnn, scaled_up, by_rule, by_rule - scaled_up))
    path = results / "accuracy" / accuracy_key(config) / "size_rule.csv"
    with whole_file(path) as temporary, temporary.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([*row[:2], *(f"{value:.4f}" for value in row[2:])] for row in rows)
    return path


def _scaled_up(config: Config, sent: int, dnn: int, results: Path, root: Path) -> list[Detections]:
    """Return what the DNN at `dnn` px finds in frames that were sent at `sent` px."""
    clip = config["profile"]["clip"]
    device = reference_device(config, dnn, results, root)
    found = []
    with progress(f"{sent} px seen at {dnn} px", int(config["clips"][clip]["frames"])) as step:
        for number, image in enumerate(images(clip_path(config, clip, results))):
            found.append(find(device, encode(image, sent), sent, f"{clip}:{number}"))
            step()
    return found
