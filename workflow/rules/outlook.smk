# What a dry run tells beside its jobs: how many runs are done, and how long the others take.
import atexit

NEEDED = {}  # cells that what was asked for needs, in the order in which Snakemake comes to them


def noted(inputs):
    """Inputs of a cell's job; notes the cell, since the graph has one job a cell it needs."""

    def given(wildcards):
        NEEDED[wildcards.cell] = CELLS[wildcards.cell]
        return inputs(wildcards)

    return given


def tell_outlook():
    runs = [run for cell in NEEDED.values() for run in grid.runs(config, cell)]
    if runs and workflow.dryrun:
        from scripts.outlook import outlook

        cores = workflow.resource_settings.cores or os.cpu_count()
        print(outlook(config, runs, Path("results"), cores), file=sys.stderr)


# At the end, when the graph is known; handlers of Snakemake's own do not run in a dry run.
atexit.register(tell_outlook)
