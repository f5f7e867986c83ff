# Which runs other code has made, and what emulation gets wrong: a page of the report.
rule caveats:
    input:
        cells=lambda wildcards: tables_of(CELLS.values()),
        profiles=[profile_file(device) for device in DEVICES],
        latencies=profiled_latencies(),
        size_rule=size_rule_files(),
        code=code("scripts/caveats.py", "scripts/drift.py", "experiment/disturbance.py"),
    output:
        report(
            "results/{scenario}/caveats.html",
            caption="../report/caveats.rst",
            category="Scores",
        ),
    log:
        "results/logs/{scenario}/caveats.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        present=[
            provenance.code_digest(ROOT, files)
            for files in (provenance.CODE, provenance.SIMULATED_CODE)
        ],
        missing=lambda wildcards: missing(CELLS.values()),
    script:
        "../../scripts/calls/caveats.py"


# One HTML file that holds what rules mark with report(). Made by the very Snakemake that runs,
# hence `run` and no environment of its own.
rule write_report:
    input:
        figures=figure_files("png"),
        scores="results/{scenario}/scores.html",
        caveats="results/{scenario}/caveats.html",
        size_rule=size_rule_files(),
    output:
        "results/{scenario}/report.html",
    log:
        "results/logs/{scenario}/report.log",
    run:
        from scripts.report import write_report

        write_report(config, Path(workflow.main_snakefile), Path(output[0]), Path(log[0]))
