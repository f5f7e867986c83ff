"""Cut a clip."""

from pathlib import Path

from scripts import clips
from scripts.logged import logged

with logged(snakemake):
    clips.main(snakemake.config, snakemake.wildcards.clip, snakemake.params.root, Path("results"))
