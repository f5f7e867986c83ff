"""Write the table of cells that figures lack."""

from pathlib import Path

from scripts.logged import logged
from scripts.tables import write_missing

with logged(snakemake):
    write_missing(Path(snakemake.output[0]), snakemake.params.cells, Path(snakemake.params.logs))
