"""Download an asset."""

from pathlib import Path

from experiment.paths import ROOT
from scripts.data import fetch_named
from scripts.logged import logged

with logged(snakemake):
    fetch_named(ROOT / snakemake.config["assets"], [snakemake.params.name], Path("results/data"))
