"""Score all runs."""

from pathlib import Path

from scripts import score
from scripts.logged import logged

with logged(snakemake):
    score.main(snakemake.config, Path("results"), snakemake.params.root)
