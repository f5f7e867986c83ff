# One HTML file that holds what rules mark with report(). Made by the very Snakemake that runs,
# hence `run` and no environment of its own.
rule write_report:
    input:
        figures=figure_files("png"),
        scores="results/{scenario}/scores.html",
        size_rule=size_rule_files(),
    output:
        "results/{scenario}/report.html",
    log:
        "results/logs/{scenario}/report.log",
    run:
        from scripts.report import write_report

        write_report(config, Path(workflow.main_snakefile), Path(output[0]), Path(log[0]))
