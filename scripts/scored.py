"""What a run is worth: the columns of scores, and how each is computed from frames.

Right is what came back in time: the detections of an `ok` frame are compared with the reference
DNN's on the same frame. Two sets of frames are scored. *answered*: those that are `ok`; *all*:
every frame captured, a missed one counting as an answer that found nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jellyfish.matching import MATCHINGS
from jellyfish.records import Outcome
from scripts.answers import Answers, IntArray, joined

MISSES = tuple(outcome for outcome in Outcome if outcome is not Outcome.OK)
STAGES = ("dispatch_ms", "decode_ms", "wait_ms", "execute_ms")
PERCENTILES = (50, 95, 99)
COUNTED = {
    "tp": "detections that are right",
    "fp": "detections that are wrong",
    "fn": "reference boxes not found",
}

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
    **{
        f"{value}_{matching}_{frames}": f"{meaning}, {matching} matching, over {frames} frames"
        for matching in MATCHINGS
        for frames in ("all", "answered")
        for value, meaning in COUNTED.items()
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
    "cpu_others": "measured: share of CPU time that other programs took; the most of a cell's runs",
    "cpu_stolen": "measured: share of it that the hypervisor took; the most of a cell's runs",
    "disturbed": "measured: runs where both took more than allowed; empty where nobody watched",
}

READ = (
    *("client", "frame", "clip_frame", "capture_s", "outcome", "px_sent", "dnn_px"),
    *("bytes_up", "bandwidth_true_kbps", "e2e_ms", "send_ms", *STAGES),
)  # columns of frames.parquet


@dataclass(frozen=True, eq=False)
class Scored:
    """The F frames of a run, or of several.

    Args:
        frames: (F,) rows as in frames.parquet, its columns READ.
        answers: A different answers.
        given: (F,) which of them each frame got; one that found nothing if it was missed.
        rhos: see `trace_rhos`.
    """

    frames: pd.DataFrame
    answers: Answers
    given: IntArray
    rhos: NDArray[np.float64]

    @classmethod
    def pooled(cls, parts: Sequence[Scored]) -> Scored:
        """Return the frames of all `parts` together."""
        different = list(dict.fromkeys(part.answers for part in parts))
        first = dict(zip(different, np.cumsum([0, *map(len, different)]), strict=False))
        return cls(
            frames=pd.concat([part.frames for part in parts], ignore_index=True),
            answers=joined(tuple(different)),
            given=np.concatenate([part.given + first[part.answers] for part in parts]),
            rhos=np.concatenate([part.rhos for part in parts]),
        )


def values(scored: Scored) -> dict[str, float]:
    """Return the columns that are computed from frames."""
    frames = scored.frames
    outcomes = {name: (frames["outcome"] == name).to_numpy(bool) for name in Outcome}
    ok = outcomes[Outcome.OK]
    ap = scored.answers.ranking.average_precision(scored.given)
    return {
        **_shares(outcomes),
        **_matched(scored, ok),
        "ap": ap.ap,
        "ap50": ap.ap50,
        **_latencies(frames[ok | outcomes[Outcome.LATE]]),
        **_sizes(frames, ok),
        "px_trace_rho": float(np.mean(scored.rhos)) if len(scored.rhos) else float("nan"),
    }


def _shares(outcomes: dict[Outcome, NDArray[np.bool_]]) -> dict[str, float]:
    n, ok = len(outcomes[Outcome.OK]), int(outcomes[Outcome.OK].sum())
    shares = {f"{miss}_rate": float(outcomes[miss].sum() / n) for miss in MISSES}
    return {"frames": n, "ok": ok, "miss_rate": 1 - ok / n, **shares}


def _matched(scored: Scored, answered: NDArray[np.bool_]) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, counts in scored.answers.counts.items():
        for frames, given in (("all", scored.given), ("answered", scored.given[answered])):
            part = counts.where(given)
            for value in ("f1", "precision", "recall"):
                result[f"{value}_{name}_{frames}"] = getattr(part, value)
            for value in COUNTED:
                result[f"{value}_{name}_{frames}"] = int(getattr(part, value).sum())
    detected = scored.given[answered & scored.answers.detected[scored.given]]
    result["f1_published_detected"] = scored.answers.counts["published"].where(detected).f1
    return result


def _latencies(answered: pd.DataFrame) -> dict[str, float]:
    result = {}
    for name in ("e2e", "send"):
        known = answered[f"{name}_ms"].dropna().to_numpy(np.float64)
        found = np.percentile(known, PERCENTILES) if len(known) else [float("nan")] * 3
        for p, value in zip(PERCENTILES, found, strict=True):
            result[f"{name}_p{p}_ms"] = float(value)
    return result | {stage: float(answered[stage].mean()) for stage in STAGES}


def _sizes(frames: pd.DataFrame, in_time: NDArray[np.bool_]) -> dict[str, float]:
    sent = frames.loc[frames["px_sent"] > 0, ["px_sent", "bytes_up"]]
    dnn_px = frames["dnn_px"].to_numpy()[in_time]
    return {
        "px_mean": float(sent["px_sent"].mean()),
        "dnns_used": len(np.unique(dnn_px[dnn_px > 0])),
        "bytes_up_mean": float(sent["bytes_up"].mean()),
    }


def trace_rhos(frames: pd.DataFrame) -> NDArray[np.float64]:
    """Return Spearman's rho of size sent and bandwidth, second by second, of each client.

    Clients that did not see both change are left out.
    """
    columns = ("client", "capture_s", "px_sent", "bandwidth_true_kbps")
    client, capture_s, px, kbps = (frames[name].to_numpy(np.float64) for name in columns)
    sent = (px > 0) & np.isfinite(kbps)
    found = []
    for one in np.unique(client[sent]):
        mine = sent & (client == one)
        second = (capture_s[mine] - capture_s[mine].min()).astype(np.int64)
        counts = np.bincount(second)
        there = counts > 0
        means = [np.bincount(second, of[mine])[there] / counts[there] for of in (px, kbps)]
        if all(np.ptp(values) > 0 for values in means):
            ranks = pd.DataFrame(means).rank(axis=1).to_numpy()
            found.append(np.corrcoef(ranks)[0, 1])
    return np.array(found, np.float64)
