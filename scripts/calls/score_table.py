"""Write the table of scores that people read."""

from pathlib import Path

from scripts import tables
from scripts.logged import logged

with logged(snakemake):
    tables.main(Path(snakemake.input.cells))
