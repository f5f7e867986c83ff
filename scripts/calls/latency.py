"""Measure the latencies of the DNNs."""

from pathlib import Path

from experiment.profiling import profile_latency
from scripts.logged import logged

with logged(snakemake):
    profile_latency(snakemake.config, snakemake.params.device, Path("results"))
