# The zoo's network with its weights, in the form that CPUs serve.
rule zoo:
    input:
        weights=asset_path(ZOO.weights),
        zoo=code(config["zoo"], ZOO.cfg.relative_to(ROOT)),
    output:
        "results/zoo/{zoo}/model.onnx",
    log:
        "results/logs/zoo/{zoo}.log",
    wildcard_constraints:
        zoo=re.escape(ZOO.name),
    conda:
        "../../envs/server.yaml"
    script:
        "../../scripts/calls/zoo.py"
