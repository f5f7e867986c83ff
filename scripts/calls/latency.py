"""Measure the latency of one DNN."""

from pathlib import Path

from experiment.profiling import profile_latency
from scripts.logged import logged

with logged(snakemake):
    profile_latency(
        snakemake.config, snakemake.params.device, int(snakemake.wildcards.px), Path("results")
    )
