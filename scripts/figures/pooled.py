"""Scores of policies that met the same cases, pooled so that they can be set side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

F1, MISSES = "f1", "miss_rate"
COUNTS = TP, FP, FN = "tp_strict_all", "fp_strict_all", "fn_strict_all"
CASE = ("trace", "group", "slo", "fps", "clip", "repetition")  # what policies are compared on
COLUMNS = (*CASE, "policy", "frames", "ok", *COUNTS)


def comparable(rows: pd.DataFrame, policies: Sequence[str]) -> pd.DataFrame:
    """Return the rows of those `policies` that a trace has, of cases that all of these have.

    Where nothing is missing, that is every row of `policies`.
    """
    kept = rows[rows["policy"].isin(policies)]
    asked = kept.groupby("trace")["policy"].transform("nunique")
    found = kept.groupby(list(CASE))["policy"].transform("nunique")
    return kept[found == asked]


def by_repetition(rows: pd.DataFrame) -> pd.DataFrame:
    """Return F1 and miss rate (columns) by trace, policy and repetition (index).

    Both are pooled over cells and clips: worked out from sums of detections and frames.
    """
    sums = rows.groupby(["trace", "policy", "repetition"])[["frames", "ok", *COUNTS]].sum()
    double = 2 * sums[TP]
    f1, misses = double / (double + sums[FP] + sums[FN]), 1 - sums["ok"] / sums["frames"]
    return pd.DataFrame({F1: f1, MISSES: misses})


def spread(values: pd.Series[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean over repetitions, and how far the least and the most are from it."""
    mean = float(values.mean())
    return mean, (max(0.0, mean - float(values.min())), max(0.0, float(values.max()) - mean))


def note(rows: pd.DataFrame) -> list[str]:
    """Return small print: what the points of `rows` are means of."""
    repetitions = rows["repetition"].nunique()
    cases = rows.groupby(["trace", "policy"]).size().max()
    parts = [f"F1 strict, over all frames captured; {cases} runs pooled a point"]
    if repetitions > 1:
        parts.append(f"bars: least to most of {repetitions} repetitions")
    return parts
