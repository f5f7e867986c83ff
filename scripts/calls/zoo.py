"""Export the zoo for CPUs."""

from pathlib import Path

from experiment.paths import ROOT
from scripts import export_zoo
from scripts.logged import logged

with logged(snakemake):
    export_zoo.main(snakemake.config, ROOT, Path("results"))
