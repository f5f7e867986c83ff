"""Score all runs."""

from pathlib import Path

from experiment.paths import ROOT
from scripts import score
from scripts.logged import logged

with logged(snakemake):
    score.main(snakemake.config, Path("results"), ROOT, snakemake.params.missing)
