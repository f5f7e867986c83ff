# One row a run, one row a cell, and the table of cells that people read.
rule scores:
    input:
        cells=lambda wildcards: tables_of(CELLS.values()),
        reference=[detections_path(clip, ZOO.reference_px) for clip in RUN_CLIPS],
        code=code(
            "scripts/score.py",
            "jellyfish/matching.py",
            "jellyfish/average_precision.py",
        ),
    output:
        runs="results/{scenario}/scores.parquet",
        csv=report(
            "results/{scenario}/scores.csv", caption="../report/scores.rst", category="Scores"
        ),
        cells=multiext("results/{scenario}/scores_by_cell", ".parquet", ".csv"),
    log:
        "results/logs/{scenario}/scores.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        scoring=config["scoring"],
        frames=lambda wildcards: frames_of(drawn(CELLS.values())),
        missing=lambda wildcards: missing(CELLS.values()),
    script:
        "../../scripts/calls/scores.py"


rule score_table:
    input:
        cells="results/{scenario}/scores_by_cell.parquet",
        code=code("scripts/tables.py"),
    output:
        markdown="results/{scenario}/scores.md",
        html=report(
            "results/{scenario}/scores.html",
            caption="../report/score_table.rst",
            category="Scores",
        ),
    log:
        "results/logs/{scenario}/score_table.log",
    conda:
        "../../envs/analysis.yaml"
    script:
        "../../scripts/calls/score_table.py"
