"""Measure how far off emulated answers to small frames are."""

from pathlib import Path

from experiment.size_rule import measure_size_rule
from scripts.logged import logged

with logged(snakemake):
    measure_size_rule(snakemake.config, Path("results"))
