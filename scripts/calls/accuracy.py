"""Score one DNN on the profile clip."""

from pathlib import Path

from experiment.profiling import profile_accuracy
from scripts.logged import logged

with logged(snakemake):
    profile_accuracy(snakemake.config, int(snakemake.wildcards.px), Path("results"))
