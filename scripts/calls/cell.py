"""Run a cell of the grid."""

from pathlib import Path

from experiment.cell import run_cell
from scripts.logged import logged

with logged(snakemake):
    run_cell(snakemake.config, snakemake.params.cell, Path("results"))
