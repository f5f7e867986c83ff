# Figures, from the tables alone. Each is made anew when its tables or its script change, and when
# cells that it lacked (allow_missing) are there.
rule missing_cells:
    output:
        "results/{scenario}/missing.csv",
    log:
        "results/logs/{scenario}/missing_cells.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        cells=lambda wildcards: missing(CELLS.values()),
        logs=f"results/logs/{SCENARIO}/cells",
    script:
        "../../scripts/calls/missing.py"


rule draw_fig_6:
    input:
        profile=lambda wildcards: profile_file(OF_DEVICE[wildcards.of]),
        raw=lambda wildcards: raw_profile(OF_DEVICE[wildcards.of]),
        code=figure_code("fig_6"),
    output:
        pdf="results/{scenario}/figures/fig_6{of}.pdf",
        png=report(
            "results/{scenario}/figures/fig_6{of}.png",
            caption="../report/fig_6.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_6{of}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        latencies=lambda wildcards: grid.latencies(config, OF_DEVICE[wildcards.of]),
        emulated=lambda wildcards: grid.is_emulated(config, OF_DEVICE[wildcards.of]),
    script:
        "../../scripts/calls/fig_6.py"


rule draw_fig_7:
    input:
        cell=lambda wildcards: tables_of([FIG_7[wildcards.setting]]),
        profile=lambda wildcards: profile_file(FIG_7[wildcards.setting].device),
        code=figure_code("fig_7"),
    output:
        pdf="results/{scenario}/figures/fig_7{setting}.pdf",
        png=report(
            "results/{scenario}/figures/fig_7{setting}.png",
            caption="../report/fig_7.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_7{setting}.log",
    wildcard_constraints:
        setting=f"({'|'.join(map(re.escape, FIG_7))})",
    conda:
        "../../envs/analysis.yaml"
    params:
        frames=lambda wildcards: frames_of([FIG_7[wildcards.setting]])[0],
        setting=lambda wildcards: SETTINGS[wildcards.setting],
        wanted=lambda wildcards: fig_7_wanted(FIG_7[wildcards.setting].world),
    script:
        "../../scripts/calls/fig_7.py"


rule draw_fig_8:
    input:
        missing_table(),
        scores="results/{scenario}/scores.parquet",
        profile=lambda wildcards: profile_file(SETTINGS[wildcards.setting]["device"]),
        code=figure_code("fig_8"),
    output:
        pdf="results/{scenario}/figures/fig_8{setting}.pdf",
        png=report(
            "results/{scenario}/figures/fig_8{setting}.png",
            caption="../report/fig_8.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_8{setting}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: SETTINGS[wildcards.setting],
        missing=lambda wildcards: missing(cells_of(wildcards.setting)),
    script:
        "../../scripts/calls/fig_8.py"


rule draw_fig_9:
    input:
        missing_table(),
        cells=lambda wildcards: tables_of(cells_of(wildcards.setting)),
        code=figure_code("fig_9"),
    output:
        pdf="results/{scenario}/figures/fig_9{setting}.pdf",
        png=report(
            "results/{scenario}/figures/fig_9{setting}.png",
            caption="../report/fig_9.rst",
            category="Figures",
        ),
    log:
        "results/logs/{scenario}/fig_9{setting}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        setting=lambda wildcards: SETTINGS[wildcards.setting],
        frames=lambda wildcards: frames_of(drawn(cells_of(wildcards.setting))),
        missing=lambda wildcards: missing(cells_of(wildcards.setting)),
    script:
        "../../scripts/calls/fig_9.py"
