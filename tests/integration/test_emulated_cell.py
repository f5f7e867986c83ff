"""A cell in real time on emulated devices: gRPC, relays and worker processes, but no DNN."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment import grid, paths
from experiment.cell import run_cell
from experiment.places import LocalPlace
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.detections import CLIENT_STRIDE, read_coco
from jellyfish.files.profiles import write_profile
from jellyfish.files.tables import read_table
from jellyfish.profile import Profile
from scripts import clips
from tests.simulated import clip, emulation, latency_ms

STREAM_S = 3.0


def config_of(root: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((root / "config" / "config.yaml").read_text())
    block = {
        "world": "measured",
        "device": "gpu",
        "workers": 2,
        "traces": ["synthetic"],
        "clients": [2],
        "slo_ms": [300],
        "fps": [20],  # both at the largest DNN are more than one GPU serves
        "clips": ["vtest-1"],
        "repetitions": 1,
    }
    value["devices"]["gpu"] = {"kind": "emulated", "profile": "synthetic", "max_batch": 8}
    value["clips"]["vtest-1"]["frames"] = 30
    value["client"] |= {"stream_s": STREAM_S, "start_gap_s": [0.2, 0.3]}
    return value | {"grid": [block], "mixed": {}, "scenario": "test"}


def config_over(root: Path, hosts: Path) -> dict[str, Any]:
    """Return that of a cell on the hosts of a file."""
    value = config_of(root) | {"hosts": str(hosts), "allow_dirty": True}
    value["server"] |= {"start_timeout_s": 240, "policy": "paper"}  # whatever runs beside it
    return value


def prepare(config: dict[str, Any], root: Path, assets: Path, results: Path) -> None:
    (results / "data").mkdir()
    (results / "data" / "videos").symlink_to(assets / "videos")
    clips.main(config, "vtest-1", root, results)
    px = paths.zoo_of(config).input_px
    table = [[latency_ms(p, b) for b in range(1, 9)] for p in px]
    profile = Profile(
        input_px=px,
        frame_bytes=[p * p * 3 / 7 for p in px],
        accuracy=[i / len(px) for i in range(len(px))],
        latency_ms=table,
    )
    folder = paths.profile_folder(config, "gpu", results)
    write_profile(folder / "profile.json", profile)
    write_json(folder / "emulation.json", {**emulation(), "latency_ms": table})
    for p, found in clip(px).items():
        write_clip_detections(paths.detections_path(config, "vtest-1", p, results), found)


def test_a_laptop_serves_two_gpus(root: Path, assets: Path, tmp_path: Path) -> None:
    config = config_of(root)
    prepare(config, root, assets, tmp_path)
    (cell,) = grid.cells(config)
    index = read_json(run_cell(config, cell, tmp_path))
    (run,) = grid.runs(config, cell)
    folder = paths.run_folder(run.key, tmp_path)
    frames = read_table(folder / "frames.parquet").to_pandas()
    assert len(frames) == 2 * 60
    assert set(frames.latencies) == {"emulated synthetic"}
    assert index["runs"][0]["outcomes"]["ok"] > 30  # whatever else this machine does
    served = frames[frames.outcome == "ok"]
    assert set(served.gpu) == {0, 1}
    # What a batch took is drawn as said, whatever the machine's load.
    limits = np.array([latency_ms(p, b) for p, b in zip(served.dnn_px, served.batch, strict=True)])
    assert (served.execute_ms <= 1.3 * limits + 1e-6).all()
    assert (served.execute_ms >= 0.6 * limits).all()
    assert set(served.clip_frame) <= set(range(30))
    answered = {image // CLIENT_STRIDE for image in read_coco(folder / "detections.json")}
    assert answered == {0, 1}


def test_a_cell_over_mutual_tls(
    root: Path, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(root)
    config["network"]["tls"] = "mutual"
    config["client"]["stream_s"] = 1.0
    prepare(config, root, assets, tmp_path)
    modes: dict[str, int] = {}
    hide = LocalPlace.hide

    def seen(place: LocalPlace, name: str, content: bytes) -> str:
        path = hide(place, name, content)
        modes[name] = stat.S_IMODE(os.stat(path).st_mode)
        return path

    monkeypatch.setattr(LocalPlace, "hide", seen)
    (cell,) = grid.cells(config)
    index = read_json(run_cell(config, cell, tmp_path))
    assert index["runs"][0]["outcomes"]["ok"] > 0
    (run,) = grid.runs(config, cell)
    folder = paths.run_folder(run.key, tmp_path)
    jobs = {path.name: read_json(path) for path in (folder / "jobs").glob("*.job.json")}
    assert len({job["tls_key"] for job in jobs.values()}) == 3
    assert "tls_client_ca" in jobs["server.job.json"]  # and so who shows no certificate is refused
    assert set(modes.values()) == {0o600}
    assert modes.keys() >= {Path(job["tls_key"]).name for job in jobs.values()}
    assert not list(folder.rglob("*.pem"))
    plain = grid.runs({**config, "network": {**config["network"], "tls": "none"}}, cell)[0]
    assert plain.key != run.key
    assert plain.seed == run.seed
