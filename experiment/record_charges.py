"""What measured runs spent beside the network and the devices, for simulated ones to be charged.

`python -m experiment.record_charges RUN...` prints, per device, the distributions of some runs, by
their directories under results/runs/, in the form that `simulation` reads (config/README.md).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from experiment.disturbance import told
from experiment.link import FRAME_HEADER_BYTES, Uplink
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json
from jellyfish.files.tables import read_table
from jellyfish.trace import Trace, from_rates

# The last thousandth is left out: a single stall is no part of a distribution.
SHARES = (*(k / 20 for k in range(20)), 0.97, 0.98, 0.99, 0.995, 0.999)
HEADER = """\
# What software cost on one machine, in ms as [share, at most]; config/README.md says how to record
# another's with python -m experiment.record_charges."""
INDENT = "    "
Times = NDArray[np.float64]


def record(folders: Iterable[Path]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return {device: {name: [(share, quantile in ms), ...]}} of measured runs, by directories.

    Runs that other programs disturbed are left out; it says which, on stderr.

    Raises:
        DataError: a directory holds no measured run, or one without answers; or all were disturbed.
    """
    found: dict[str, dict[str, list[Times]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        if (disturbance := told(folder)).disturbed:
            print(f"{folder}: left out, since it was disturbed ({disturbance.of})", file=sys.stderr)
            continue
        frames = read_table(folder / "frames.parquet")
        device, world = (str(frames.column(name)[0]) for name in ("device", "world"))
        if world != "measured":
            raise DataError(f"{folder} is a {world} run; charges are recorded from measured ones")
        for name, times in _spent(folder, frames).items():
            found[device][name].append(times)
    if not found:
        raise DataError("every run was disturbed; measure on a machine that does nothing else")
    return {
        device: {name: _quantiles(f"{name} of {device}", parts) for name, parts in charges.items()}
        for device, charges in found.items()
    }


def _quantiles(what: str, parts: Sequence[Times]) -> list[tuple[float, float]]:
    times = np.concatenate(parts)
    if not len(times):
        raise DataError(f"{what}: nothing in the runs tells it")
    found = np.quantile(times.clip(min=0), SHARES)
    return [(share, round(float(ms), 2)) for share, ms in zip(SHARES, found, strict=True)]


def _spent(folder: Path, frames: pa.Table) -> dict[str, Times]:
    """Return the times of a run: a value a plan, a batch's frame, a frame or an answer.

    What the server's CPU spends is in `transport_ms`: no run tells them apart.
    """
    value = {
        name: frames.column(name).to_numpy().astype(float)
        for name in ("capture_s", "sent_s", "acked_s", "received_s", "server_ms", "dispatch_ms")
    }
    batch = frames.column("batch").to_numpy()
    answered_ms = (value["received_s"] - value["acked_s"]) * 1000 - value["server_ms"]
    return {
        "scheduler_ms": read_table(folder / "plans.parquet").column("solve_ms").to_numpy(),
        "transport_ms": _beyond_the_link(folder, frames),
        "hand_over_ms": value["dispatch_ms"][batch > 0],
        "device_ms": _known((value["sent_s"] - value["capture_s"]) * 1000),
        "answer_ms": _known(answered_ms[batch == 1]),  # of a larger batch, each waits for others
    }


def _known(times: Times) -> Times:
    return times[np.isfinite(times)]


def _beyond_the_link(folder: Path, frames: pa.Table) -> Times:
    """Return how much later than over an ideal link each frame was acknowledged, in ms."""
    spent = []
    rows = frames.select(["client", "frame", "bytes_up", "sent_s", "acked_s"]).to_pylist()
    for client in sorted({row["client"] for row in rows}):
        link = _ideal_link(folder, client)
        for row in rows:
            if row["client"] == client and row["bytes_up"] > 0:
                arrival_s = link.send(row["sent_s"], row["bytes_up"] + FRAME_HEADER_BYTES)
                assert arrival_s is not None, "it has no limit"
                spent.append((row["acked_s"] - arrival_s) * 1000)
    return _known(np.array(spent))


def _ideal_link(folder: Path, client: int) -> Uplink:
    job = read_json(folder / "jobs" / f"client-{client}.job.json")
    relay = read_json(folder / f"client-{client}.json")["relay"] or {}
    given, delay_s = job["trace"], 2 * job["delay_ms"] / 1000  # there, and the word back
    trace: Trace | None = from_rates("uplink", given["mbps"], given["step_s"]) if given else None
    return Uplink(trace, relay.get("started_s", 0.0), delay_s, None)


def as_text(charges: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> str:
    """Return what `record` found as YAML, with the median and the tail of each in words."""
    lines = [HEADER]
    for device, named in charges.items():
        lines.append(f"{device}:")
        for name, pairs in sorted(named.items()):
            at = dict(pairs)
            lines.append(f"  {name}: # at most {at[0.5]:g} in half of all, {at[0.99]:g} in 99 %")
            listed = ", ".join(f"[{share:g}, {ms:g}]" for share, ms in pairs)
            lines += wrap(f"[{listed}]", 100, initial_indent=INDENT, subsequent_indent=INDENT + " ")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what some runs spent."""
    parser = argparse.ArgumentParser(
        prog="python -m experiment.record_charges", description=__doc__
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    options = parser.parse_args(arguments)
    print(as_text(record(options.runs)))


if __name__ == "__main__":
    main()
