"""The two servers of benchmarks.data_path, as processes that are looked at from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiment.processes import command, descendants
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.profiles import write_profile
from jellyfish.profile import Profile
from tests.simulated import clip

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
KIB_A_MB = 1000 / 1.024
LOOK_S = 0.005


@dataclass(frozen=True)
class Served:
    """A server that runs. `started_s`: when it was started, by time.monotonic()."""

    process: subprocess.Popen[bytes]
    port: int
    started_s: float

    @property
    def cpu_s(self) -> float:
        """CPU time of the process itself, without its children."""
        return _cpu_s(self.process.pid)

    @property
    def children_cpu_s(self) -> float:
        """CPU time of the children that it has now."""
        return sum(_cpu_s(child.pid) for child in descendants(self.process.pid))

    def resident_mb(self) -> dict[str, float]:
        """Return the memory of the process and of each child, by what they are."""
        found = {"server": _resident_mb(self.process.pid)}
        for child in descendants(self.process.pid):
            module = next(word for word in command(child.pid) if word.startswith("server."))
            found[module.removeprefix("server.").partition("_")[0]] = _resident_mb(child.pid)
        return found


def _cpu_s(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / KIB_A_MB


@contextmanager
def bare(folder: Path) -> Iterator[Served]:
    """Run the bare server."""
    with _served(folder, "benchmarks.bare_server", "--out", str(folder)) as served:
        yield served


@contextmanager
def real(folder: Path, px: int, frame_bytes: int, latency_ms: Sequence[float]) -> Iterator[Served]:
    """Run the real server with one DNN of input size `px`, which takes so long by batch size."""
    _write_job(folder, px, frame_bytes, list(latency_ms))
    with _served(folder, "server", "--job", str(folder / "job.json")) as served:
        yield served


@contextmanager
def _served(folder: Path, *arguments: str) -> Iterator[Served]:
    """Run a server that writes `server.ready.json` into `folder`, and its log beside it."""
    ready, log, begin_s = folder / "server.ready.json", folder / "log", time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stderr=errors)
    try:
        while not ready.is_file():
            if process.poll() is not None:
                raise SystemExit(f"python -m {arguments[0]} has ended:\n{log.read_text()}")
            time.sleep(LOOK_S)
        yield Served(process, read_json(ready)["port"], begin_s)
    finally:
        process.terminate()
        process.wait(20)


def _write_job(folder: Path, px: int, frame_bytes: int, latency_ms: list[float]) -> None:
    profile = Profile(
        input_px=[px], frame_bytes=[frame_bytes], accuracy=[0.5], latency_ms=[latency_ms]
    )
    write_profile(folder / "profile.json", profile)
    emulation = {"kind": "jitter", "latency_ms": [latency_ms], "sigma": 0.0, "cap": 1.0}
    write_json(folder / "emulation.json", emulation)
    write_clip_detections(folder / "clip.npz", clip([px])[px])
    files = {"clip": {str(px): str(folder / "clip.npz")}}
    job = {
        "zoo": str(ROOT / "config/zoo/yolov3-tiny.yaml"),
        "profile": str(folder / "profile.json"),
        "model": {"emulation": str(folder / "emulation.json"), "detections": files},
        "devices": [{"kind": "emulated", "profile": "made up", "max_batch": len(latency_ms)}],
        "out_dir": str(folder),
    }
    (folder / "job.json").write_text(json.dumps(job))
