"""Write what to bear in mind with the numbers."""

from pathlib import Path

from scripts import caveats
from scripts.logged import logged

with logged(snakemake):
    caveats.main(
        snakemake.config,
        Path("results"),
        map(Path, snakemake.input.size_rule),
        snakemake.params.missing,
    )
