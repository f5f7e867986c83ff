"""Scores: what each run was worth, as a tidy table, results/SCENARIO/scores.parquet and .csv.

scores: one row a run. scores_by_cell: one row a cell, the frames of its runs pooled (`run` empty,
`clip` all, `repetition` -1). Same columns in both; `COLUMNS` says what each means.

Right is what came back in time: the detections of an `ok` frame are compared with the reference
DNN's on the same frame. Two sets of frames are scored. *answered*: those that are `ok`; *all*:
every frame captured, a missed one counting as an answer that found nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiment.grid import Cell, Run, cells, detections_key, latencies, runs
from jellyfish.average_precision import average_precision
from jellyfish.detections import Detections
from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.files.detections import image_id, read_coco
from jellyfish.files.tables import read_table
from jellyfish.files.zoo import read_zoo
from jellyfish.matching import MATCHINGS, Counts, Rule
from jellyfish.records import Outcome

MISSES = tuple(outcome for outcome in Outcome if outcome is not Outcome.OK)
STAGES = ("dispatch_ms", "decode_ms", "wait_ms", "execute_ms")
PERCENTILES = (50, 95, 99)

COLUMNS = {
    "cell": "name of the cell",
    "run": "key of the run under results/runs/; empty for a cell",
    "world": "measured or simulated",
    "device": "the config's name of the device that served",
    "latencies": "whose latencies they are",
    "workers": "number of workers",
    "policy": "the server's policy",
    "trace": "the uplink's trace",
    "group": "number of clients, or the name of a mixed cell",
    "clients": "number of clients",
    "slo": "their SLO in ms, or var where they differ",
    "fps": "their frame rate, or var where they differ",
    "clip": "the clip; all for a cell",
    "repetition": "from 0; -1 for a cell",
    "frames": "frames captured",
    "ok": "frames answered in time",
    "miss_rate": "1 - ok / frames, the sum of the next five",
    **{f"{miss}_rate": f"frames that were {miss} / frames" for miss in MISSES},
    **{
        f"{value}_{matching}_{frames}": f"{value}, {matching} matching, over {frames} frames"
        for matching in MATCHINGS
        for frames in ("all", "answered")
        for value in ("f1", "precision", "recall")
    },
    "f1_published_detected": "f1, published matching, over answered frames with any detection",
    "ap": "AP at IoU .50:.95 against the reference, all frames",
    "ap50": "AP at IoU .50 against the reference, all frames",
    **{f"e2e_p{p}_ms": f"p{p} from capture to answer, ok and late frames" for p in PERCENTILES},
    **{f"send_p{p}_ms": f"p{p} from sending to answer, ok and late frames" for p in PERCENTILES},
    **dict.fromkeys(STAGES, "mean over ok and late frames"),
    "px_mean": "mean input size of the frames sent",
    "dnns_used": "number of different DNNs that answered in time",
    "px_trace_rho": "rank correlation, second by second, of size sent and true bandwidth",
    "bytes_up_mean": "mean bytes of the frames sent",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """The F frames of a run, or of several: rows as in frames.parquet, and what was found.

    `found` is empty for a frame that was not answered in time.
    """

    frames: pd.DataFrame
    found: list[Detections]
    reference: list[Detections]
    counts: dict[str, Counts]

    @classmethod
    def match(
        cls,
        frames: pd.DataFrame,
        found: list[Detections],
        reference: list[Detections],
        rule: Rule,
    ) -> Scored:
        """Match `found` with `reference`, frame by frame, in every matching."""
        counts = {name: match(found, reference, rule) for name, match in MATCHINGS.items()}
        return cls(frames, found, reference, counts)

    @classmethod
    def pooled(cls, parts: Sequence[Scored]) -> Scored:
        """Return the frames of all `parts` together."""
        return cls(
            frames=pd.concat([part.frames for part in parts], ignore_index=True),
            found=[frame for part in parts for frame in part.found],
            reference=[frame for part in parts for frame in part.reference],
            counts={
                name: Counts(
                    *(
                        np.concatenate([getattr(part.counts[name], field) for part in parts])
                        for field in ("tp", "fp", "fn")
                    )
                )
                for name in MATCHINGS
            },
        )


def load_run(run: Path, reference: Sequence[Detections], rule: Rule) -> Scored:
    """Read and match the run in the directory `run`.

    Args:
        reference: the reference DNN's detections of every frame of the clip.

    Raises:
        DataError: a file is missing or broken, a row belongs to no frame of the clip, or the
            detections name a frame that the table lacks; the text names the file.
    """
    table: pd.DataFrame = read_table(run / "frames.parquet").to_pandas()
    if table.empty:
        raise DataError(f"{run / 'frames.parquet'} has no rows")
    if not table["clip_frame"].between(0, len(reference) - 1).all():
        raise DataError(
            f"{run / 'frames.parquet'} has a clip_frame beyond the {len(reference)} of the clip"
        )
    answers = read_coco(run / "detections.json")
    images = [image_id(c, f) for c, f in zip(table["client"], table["frame"], strict=True)]
    if unknown := set(answers) - set(images):
        raise DataError(f"{run / 'detections.json'} has image {min(unknown)}, which no frame has")
    none = Detections.none()
    in_time = table["outcome"] == Outcome.OK
    found = [
        answers.get(image, none) if ok else none for image, ok in zip(images, in_time, strict=True)
    ]
    return Scored.match(table, found, [reference[k] for k in table["clip_frame"]], rule)


def values(scored: Scored, rule: Rule) -> dict[str, float]:
    """Return the columns that are computed from frames."""
    ap = average_precision(scored.found, scored.reference, rule)
    return {
        **_outcomes(scored.frames),
        **_matched(scored),
        "ap": ap.ap,
        "ap50": ap.ap50,
        **_latencies(scored.frames),
        **_sizes(scored.frames),
    }


def _outcomes(frames: pd.DataFrame) -> dict[str, float]:
    n = len(frames)
    shares = {f"{miss}_rate": float((frames["outcome"] == miss).sum() / n) for miss in MISSES}
    ok = int((frames["outcome"] == Outcome.OK).sum())
    return {"frames": n, "ok": ok, "miss_rate": 1 - ok / n, **shares}


def _matched(scored: Scored) -> dict[str, float]:
    answered = (scored.frames["outcome"] == Outcome.OK).to_numpy(bool)
    detected = answered & np.array([len(frame) > 0 for frame in scored.found], bool)
    result = {}
    for name, counts in scored.counts.items():
        for frames, part in (("all", counts), ("answered", counts.where(answered))):
            for value in ("f1", "precision", "recall"):
                result[f"{value}_{name}_{frames}"] = getattr(part, value)
    result["f1_published_detected"] = scored.counts["published"].where(detected).f1
    return result


def _latencies(frames: pd.DataFrame) -> dict[str, float]:
    answered = frames[frames["outcome"].isin([Outcome.OK, Outcome.LATE])]
    result = {}
    for name in ("e2e", "send"):
        known = answered[f"{name}_ms"].dropna()
        for p in PERCENTILES:
            result[f"{name}_p{p}_ms"] = _percentile(known.to_numpy(np.float64), p)
    return result | {stage: float(answered[stage].mean()) for stage in STAGES}


def _percentile(samples: NDArray[np.float64], percent: int) -> float:
    return float(np.percentile(samples, percent)) if len(samples) else float("nan")


def _sizes(frames: pd.DataFrame) -> dict[str, float]:
    sent = frames[frames["px_sent"] > 0]
    in_time = frames.loc[(frames["outcome"] == Outcome.OK) & (frames["dnn_px"] > 0), "dnn_px"]
    return {
        "px_mean": float(sent["px_sent"].mean()),
        "dnns_used": int(in_time.nunique()),
        "px_trace_rho": _trace_rho(sent),
        "bytes_up_mean": float(sent["bytes_up"].mean()),
    }


def _trace_rho(sent: pd.DataFrame) -> float:
    """Return Spearman's rho of size and bandwidth per client and second, mean over clients.

    NaN where no client saw both change.
    """
    group = [name for name in ("run", "client") if name in sent]
    found = []
    for _, mine in sent.groupby(group):
        second = (mine["capture_s"] - mine["capture_s"].min()) // 1
        means = mine.groupby(second)[["px_sent", "bandwidth_true_kbps"]].mean().dropna()
        if (means.nunique() > 1).all():
            ranks = means.rank()
            found.append(ranks["px_sent"].corr(ranks["bandwidth_true_kbps"]))
    return float(np.mean(found)) if found else float("nan")


def tables(
    config: Mapping[str, Any], results: Path, root: Path, missing: Collection[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of every run and of every cell of the config's grid but the `missing`.

    Raises:
        DataError: all cells are missing, or a run or the reference detections are missing or
            broken.
        ConfigError: the zoo has none of a class that is to be scored.
    """
    rule = Rule.from_config(config["scoring"], read_zoo(root / config["zoo"]).labels)
    references = _References(config, results, root)
    by_run: list[dict[str, Any]] = []
    by_cell: list[dict[str, Any]] = []
    there = [cell for cell in cells(config) if cell.name not in missing]
    if not there:
        raise DataError("nothing to score: no cell of the grid is finished")
    for cell in there:
        *rows, pooled = _cell_rows(config, cell, references, rule)
        by_run += rows
        by_cell.append(pooled)
    return pd.DataFrame(by_run)[list(COLUMNS)], pd.DataFrame(by_cell)[list(COLUMNS)]


class _References:
    """Reference detections by clip, each file read once."""

    def __init__(self, config: Mapping[str, Any], results: Path, root: Path) -> None:
        self.results = results
        self._config = config
        self._px = read_zoo(root / config["zoo"]).reference_px
        self._read: dict[str, Sequence[Detections]] = {}

    def of(self, clip: str) -> Sequence[Detections]:
        if clip not in self._read:
            key = detections_key(self._config, clip)
            path = self.results / "detections" / key / f"{self._px}.npz"
            self._read[clip] = read_clip_detections(path).frames
        return self._read[clip]


def _cell_rows(
    config: Mapping[str, Any], cell: Cell, references: _References, rule: Rule
) -> Iterator[dict[str, Any]]:
    """Yield a row a run, then one of the whole cell."""
    parts = []
    for run in runs(config, cell):
        folder = references.results / "runs" / run.key
        part = load_run(folder, references.of(run.clip), rule)
        part.frames["run"] = run.key
        parts.append(part)
        scores = values(part, rule)
        yield _names(config, cell, part, run) | scores
    pooled = scores if len(parts) == 1 else values(Scored.pooled(parts), rule)
    yield _names(config, cell, parts[0], None) | pooled


def _names(config: Mapping[str, Any], cell: Cell, part: Scored, run: Run | None) -> dict[str, Any]:
    known = part.frames.get("latencies")
    return {
        "cell": cell.name,
        "run": run.key if run else "",
        "world": cell.world,
        "device": cell.device,
        "latencies": latencies(config, cell.device) if known is None else str(known.iloc[0]),
        "workers": cell.workers,
        "policy": cell.policy,
        "trace": cell.trace,
        "group": cell.group,
        "clients": len(cell.clients),
        "slo": cell.slo,
        "fps": cell.fps,
        "clip": run.clip if run else "all",
        "repetition": run.repetition if run else -1,
    }


def main(
    config: Mapping[str, Any],
    results: Path,
    root: Path = Path(),
    missing: Collection[str] = (),
) -> Path:
    """Write scores and scores_by_cell, .parquet and .csv, into results/SCENARIO/.

    Cells whose names are among `missing` are left out.

    Returns:
        The path of scores.parquet.

    Raises:
        DataError, ConfigError: as `tables`.
    """
    folder: Path = results / config["scenario"]
    by_run, by_cell = tables(config, results, root, missing)
    _write(by_cell, folder / "scores_by_cell.parquet")
    _write(by_run, folder / "scores.parquet")
    return folder / "scores.parquet"


def _write(scores: pd.DataFrame, path: Path) -> None:
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pandas(scores, preserve_index=False), temporary)
    with whole_file(path.with_suffix(".csv")) as temporary:
        scores.to_csv(temporary, index=False, float_format="%.6g")
