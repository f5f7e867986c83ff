"""Compare plans with the optimum, at one size."""

from pathlib import Path

from experiment.planning_runs import run_size
from scripts.logged import logged

with logged(snakemake):
    run_size(snakemake.config, "quality", snakemake.params.size, Path("results"))
