"""Measure how long plans take, at one size."""

from pathlib import Path

from experiment.planning_runs import run_size
from scripts.logged import logged

with logged(snakemake):
    run_size(snakemake.config, "timings", snakemake.params.size, Path("results"))
