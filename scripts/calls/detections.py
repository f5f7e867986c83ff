"""Run one DNN over a clip."""

from pathlib import Path

from experiment.detections import detect
from scripts.logged import logged

with logged(snakemake):
    detect(snakemake.config, snakemake.params.clip, int(snakemake.wildcards.px), Path("results"))
