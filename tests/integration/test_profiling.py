"""Profiling with a real DNN in a real worker process, killed in the middle and finished."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment import detections, paths, processes, profiling, size_rule
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.clip_detections import read_clip_detections
from scripts import clips, export_zoo
from tests.orphan import another_program

Config = dict[str, Any]
PX = 128


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    value: Config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    value["clips"]["vtest-profile"]["frames"] = 12
    value["profile"] |= {"batches": 100, "warmup": 2}
    return value


@pytest.fixture(scope="module")
def results(
    config: Config, root: Path, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "data").mkdir()
    for name in ("weights", "videos", "labelled"):
        (folder / "data" / name).symlink_to(assets / name)
    export_zoo.main(config, root, folder)
    clips.main(config, "vtest-profile", root, folder)
    return folder


PROFILE = """
import json, sys
from pathlib import Path
from experiment.profiling import profile_latency
profile_latency(json.loads(sys.argv[1]), "cpu", Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def few(config: Config, root: Path, results: Path) -> Config:
    """A zoo of two small DNNs."""
    zoo = yaml.safe_load((root / config["zoo"]).read_text())
    zoo |= {"input_px": [PX, 160], "cfg": str(root / "config" / "zoo" / zoo["cfg"])}
    (results / "few.yaml").write_text(yaml.safe_dump(zoo))
    return with_zoo(config, str(results / "few.yaml"), results)


def with_zoo(config: Config, zoo: str, results: Path) -> Config:
    """Return the config with another zoo of the same network."""
    value = {**config, "zoo": zoo}
    onnx = paths.onnx_path(value, results)
    onnx.parent.mkdir(parents=True, exist_ok=True)
    onnx.symlink_to(paths.onnx_path(config, results))
    return value


def test_a_killed_profiling_leaves_no_process_and_goes_on(
    few: Config, results: Path, root: Path
) -> None:
    path = paths.latency_path(few, "cpu", results)
    part = path.with_suffix(".part.json")
    command = [sys.executable, "-c", PROFILE, json.dumps(few), str(results)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as manager:
        deadline = time.monotonic() + 60
        while not part.is_file():
            assert manager.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        below = processes.descendants(manager.pid)
        manager.kill()
    assert below
    assert processes.wait_gone(below, 5.0) == []
    assert not path.exists()
    kept = read_json(part)
    assert 1 <= len(kept) < 10
    profiling.profile_latency(few, "cpu", results)  # the lock is free again
    measured = read_json(path)
    assert measured["rounds"][: len(kept)] == kept
    assert not part.exists()


def test_latencies_are_raw_samples_in_rounds(few: Config, results: Path) -> None:
    rounds = read_json(paths.latency_path(few, "cpu", results))["rounds"]
    assert len(rounds) == 10
    for each in rounds:
        assert each["started"] < each["ended"]
        assert 0 <= each["of"]["others"] <= 1
        assert {px: set(sizes) for px, sizes in each["samples_ms"].items()} == {
            str(px): {"1", "2"} for px in paths.zoo_of(few).input_px
        }
    found = profiling.read_samples(
        paths.latency_path(few, "cpu", results), paths.zoo_of(few).input_px, (1, 2)
    )
    for sizes in found.values():
        assert len(sizes[1]) == len(sizes[2]) == 100  # warm-up left out
        assert sizes[1].min() > 0
        assert np.median(sizes[1]) < np.median(sizes[2])


def test_a_disturbed_round_is_measured_again_and_told(
    few: Config, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last round, after nine that an earlier profiling has left."""
    asked = {**few, "profile": {**few["profile"], "warmup": 1}}
    asked["measuring"] = {"disturbed": 0.1, "tries": 2}
    path = paths.latency_path(asked, "cpu", results)
    done = read_json(paths.latency_path(few, "cpu", results))["rounds"][:9]
    write_json(path.with_suffix(".part.json"), done)
    with another_program():
        profiling.profile_latency(asked, "cpu", results)
    *kept, last = read_json(path)["rounds"]
    assert kept == done
    assert last["disturbed"]
    assert min(last["of"]["others"], *(each["others"] for each in last["discarded"])) > 0.1
    assert len(last["discarded"]) == 1
    assert "round 10 of 10 disturbed, kept all the same: " in capfd.readouterr().err


def test_accuracy_is_against_the_reference_on_the_profile_clip(
    config: Config, results: Path
) -> None:
    detections.detect(config, "vtest-profile", 320, results)
    with pytest.raises(DataError, match=r"640\.npz is missing; `snakemake --cores all"):
        profiling.profile_accuracy(config, 320, results)
    found = read_clip_detections(detections.detect(config, "vtest-profile", 640, results))
    assert (len(found), found.width, found.height) == (12, 768, 576)
    assert (found.frame_bytes > 1000).all()
    assert any(len(frame) for frame in found.frames)
    itself = read_json(profiling.profile_accuracy(config, 640, results))
    assert (itself["f1"], itself["f1_published"], itself["ap50"]) == (1.0, 1.0, pytest.approx(1.0))
    smaller = read_json(profiling.profile_accuracy(config, 320, results))
    assert 0.2 < smaller["f1"] < 1.0
    assert smaller["frame_bytes"] < itself["frame_bytes"]
    assert smaller["ap_labelled"] is None


def test_accuracy_on_images_that_people_labelled(config: Config, results: Path) -> None:
    labelled = {**config, "scoring": {**config["scoring"], "labelled": "voc-labelled"}}
    scores = read_json(profiling.profile_accuracy(labelled, 320, results))
    assert 0.1 < scores["ap_labelled"] <= 1.0


def test_a_clip_of_other_length_than_asked_is_named(config: Config, results: Path) -> None:
    longer = {**config, "clips": {"vtest-profile": {**config["clips"]["vtest-profile"]}}}
    longer["clips"]["vtest-profile"]["frames"] = 13
    cut_short = paths.clip_path(longer, "vtest-profile", results)
    cut_short.symlink_to(paths.clip_path(config, "vtest-profile", results))
    with pytest.raises(DataError, match=r"\.avi has 12 frames, the config asks for 13"):
        detections.detect(longer, "vtest-profile", PX, results)


def test_the_size_rule_is_measured_on_pairs_of_sizes(few: Config, results: Path) -> None:
    for px in (*paths.zoo_of(few).input_px, paths.zoo_of(few).reference_px):
        detections.detect(few, "vtest-profile", px, results)
    with size_rule.measure_size_rule(few, results).open() as file:
        (row,) = list(csv.DictReader(file))
    assert 0 <= float(row["f1_rule"]) <= 1
    assert 0 <= float(row["f1_scaled_up"]) <= 1
    assert float(row["error"]) == pytest.approx(
        float(row["f1_rule"]) - float(row["f1_scaled_up"]), abs=2e-4
    )
