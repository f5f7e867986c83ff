"""Generated traces: the published distribution and memory, the same for a seed."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, pstdev, quantiles

import pytest

from jellyfish.errors import ConfigError
from jellyfish.files.traces import trace_from_config
from jellyfish.trace_models import MODELS, trace_model

# Published, per second, Mbit/s: mean, sd, minimum, p25, p50, p75, maximum; autocorrelations.
MOMENTS = {
    "wifi": (51.9, 16.8, 12.9, 43.0, 53.0, 62.6, 90.8),
    "lte": (15.2, 5.3, 2.9, 11.7, 14.7, 18.1, 26.3),
}
MEMORY = {
    "wifi": {1: 0.74, 2: 0.63, 5: 0.23, 10: 0.24, 20: 0.15},
    "lte": {1: 0.67, 2: 0.51, 5: 0.57, 10: 0.27, 20: -0.01},
}


def autocorrelation(values: list[float], lag: int) -> float:
    mean = fmean(values)
    rest = [value - mean for value in values]
    pairs = zip(rest, rest[lag:], strict=False)
    return sum(a * b for a, b in pairs) / sum(a * a for a in rest)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [1, 2, 99])
def test_every_seed_has_the_published_distribution(name: str, seed: int) -> None:
    rates = trace_model(name).rates(200, seed)
    mean, sd, low, p25, p50, p75, high = MOMENTS[name]
    assert len(rates) == 200
    assert (min(rates), max(rates)) == (low, high)
    assert fmean(rates) == pytest.approx(mean, rel=0.02)
    assert pstdev(rates) == pytest.approx(sd, rel=0.1)
    assert quantiles(rates, n=4) == pytest.approx([p25, p50, p75], rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_the_memory_is_about_the_published_one(name: str) -> None:
    traces = [trace_model(name).rates(200, seed) for seed in range(40)]
    for lag, published in MEMORY[name].items():
        found = fmean(autocorrelation(rates, lag) for rates in traces)
        assert found == pytest.approx(published, abs=0.2), lag


def test_a_seed_is_one_trace(tmp_path: Path) -> None:
    spec = {"kind": "generated", "model": "lte", "seconds": 60, "seed": 3}
    trace = trace_from_config("lte", spec, tmp_path)
    assert trace == trace_from_config("lte", spec, tmp_path)
    assert trace is not None
    assert (trace.period_s, trace.step_s) == (60.0, 1.0)
    assert trace != trace_from_config("lte", {**spec, "seed": 4}, tmp_path)


def test_a_model_that_there_is_not_is_named(tmp_path: Path) -> None:
    spec = {"kind": "generated", "model": "5g", "seconds": 60, "seed": 3}
    with pytest.raises(ConfigError, match="no trace model '5g'; there are: wifi, lte"):
        trace_from_config("fast", spec, tmp_path)
