"""Write out the detections of a simulated run."""

from pathlib import Path

from experiment.stored_answers import write_detections
from scripts.logged import logged

with logged(snakemake):
    write_detections(
        snakemake.config, snakemake.params.run, Path("results"), Path(snakemake.output[0])
    )
