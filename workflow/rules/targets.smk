# What one can ask for by name beside `all`; all other rules have wildcards and are reached
# through these.


# Not sent to a cluster's nodes: what measures this machine, what downloads, what takes a second.
localrules:
    asset,
    clip,
    zoo,
    latency,
    profile,
    emulated_profile,
    cell,
    planning_timings,
    missing_cells,
    score_table,
    caveats,
    write_report,


rule data:
    """Downloads, and the clips cut from them."""
    input:
        [asset_path(name) for name in used_assets()],
        [clip_path(name) for name in [*RUN_CLIPS, config["profile"]["clip"]]],


rule profiles:
    """Latency and accuracy of every DNN on every device of the grid."""
    input:
        [profile_file(device) for device in DEVICES],


rule fig_6:
    """Accuracy against input size; latency and throughput against batch size."""
    input:
        figure("fig_6"),


rule fig_7:
    """DNN and bandwidth over the frames of up to two clients."""
    input:
        figure("fig_7"),


rule fig_8:
    """F1 and miss rate against the number of clients."""
    input:
        figure("fig_8"),


rule fig_9:
    """Distribution of the end-to-end latency."""
    input:
        figure("fig_9"),


rule fig_policies:
    """Miss rate against F1, one point a policy and trace."""
    input:
        figure("fig_policies"),


rule fig_ablation:
    """From the published policy to ours, one change at a time."""
    input:
        figure("fig_ablation"),


rule fig_agreement:
    """The same cells measured and simulated; not part of `all`."""
    input:
        figure("fig_agreement"),


rule sim_quality:
    """Plans against the proven optimum, by size; not part of `all`."""
    input:
        multiext(f"results/{SCENARIO}/figures/fig_sim_quality", ".pdf", ".png"),


rule sim_timings:
    """Time of a plan against size, up to 256 GPUs; not part of `all`."""
    input:
        multiext(f"results/{SCENARIO}/figures/fig_sim_timings", ".pdf", ".png"),


rule report:
    """One HTML file with figures, scores and the config."""
    input:
        f"results/{SCENARIO}/report.html",
