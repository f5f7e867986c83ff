"""Download an asset."""

from pathlib import Path

from scripts.data import fetch_named
from scripts.logged import logged

with logged(snakemake):
    fetch_named(snakemake.params.assets, [snakemake.params.name], Path("results/data"))
