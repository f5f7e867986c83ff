# What each DNN costs and earns. Hours on a large grid: only a changed config, a missing file or
# --forcerun measures again (see unless_done). One job a DNN: a killed profiling goes on.
rule latency:
    input:
        unless_done(latency_inputs, "latency", "results/profiles/{profile}/latency/{px}.json"),
    output:
        "results/profiles/{profile}/latency/{px}.json",
    log:
        "results/logs/profiles/{profile}/latency-{px}.log",
    conda:
        "../../envs/cell.yaml"
    threads: ALL_CORES
    resources:
        testbed=1,
    params:
        settings=profile_settings,
        device=lambda wildcards: PROFILES[wildcards.profile],
    script:
        "../../scripts/calls/latency.py"


rule accuracy:
    input:
        unless_done(accuracy_inputs, "accuracy", "results/profiles/{profile}/accuracy/{px}.json"),
    output:
        "results/profiles/{profile}/accuracy/{px}.json",
    log:
        "results/logs/profiles/{profile}/accuracy-{px}.log",
    conda:
        "../../envs/cell.yaml"
    params:
        settings=profile_settings,
        device=lambda wildcards: PROFILES[wildcards.profile],
    script:
        "../../scripts/calls/accuracy.py"


rule profile:
    input:
        latency=expand("results/profiles/{{profile}}/latency/{px}.json", px=ZOO.input_px),
        accuracy=expand("results/profiles/{{profile}}/accuracy/{px}.json", px=ZOO.input_px),
    output:
        profile="results/profiles/{profile}/profile.json",
        raw="results/profiles/{profile}/profile_raw.csv",
    log:
        "results/logs/profiles/{profile}/profile.log",
    conda:
        "../../envs/cell.yaml"
    params:
        device=lambda wildcards: PROFILES[wildcards.profile],
        sizes=list(ZOO.input_px),
    script:
        "../../scripts/calls/profile.py"
