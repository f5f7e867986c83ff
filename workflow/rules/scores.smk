# One row a run, one row a cell, and the table of cells that people read.
rule scores:
    input:
        cells=lambda wildcards: tables_of(CELLS.values()),
        reference=[detections_path(clip, ZOO.reference_px) for clip in RUN_CLIPS],
        stored=lambda wildcards: all_detections(simulated_clips()),
        code=code(
            "scripts/score.py",
            "scripts/scored.py",
            "scripts/answers.py",
            "jellyfish/matching.py",
            "jellyfish/average_precision.py",
            "jellyfish/ranking.py",
            "experiment/disturbance.py",
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
    resources:
        mem_mb=4000,
        runtime=120,
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


# A simulated run keeps no detections; they are written out when somebody asks for this file.
rule detections_of_run:
    input:
        lambda wildcards: tables_of([simulated_run(wildcards).cell]),
    output:
        "results/{scenario}/detections/{run}.json",
    log:
        "results/logs/{scenario}/detections/{run}.log",
    wildcard_constraints:
        run="simulated-[^/]+",
    conda:
        "../../envs/cell.yaml"
    params:
        run=simulated_run,
    script:
        "../../scripts/calls/detections_of_run.py"
