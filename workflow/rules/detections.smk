# What one DNN finds in every frame of a clip: the reference's is what runs are scored against, the
# others' are what emulated devices answer with. One job a DNN: what was killed goes on.
rule detections:
    input:
        unless_done(detections_inputs, "detections", "results/detections/{detections}/{px}.npz"),
    output:
        "results/detections/{detections}/{px}.npz",
    log:
        "results/logs/detections/{detections}/{px}.log",
    conda:
        "../../envs/cell.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        clip=lambda wildcards: DETECTIONS[wildcards.detections],
    script:
        "../../scripts/calls/detections.py"
