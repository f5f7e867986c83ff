"""Cut a clip."""

from pathlib import Path

from experiment.paths import ROOT
from scripts import clips
from scripts.logged import logged

with logged(snakemake):
    clips.main(snakemake.config, snakemake.params.name, ROOT, Path("results"))
