# The matrix of builds, one rule a stage; `python scripts/matrix.py run` starts it (docs/matrix.md).
#
# The rules come from the plan that scripts/matrix.py writes, which has the stages of
# scripts/flashinfer_build/pipeline/jobs.py with what each needs, so that the two never differ. A rule calls
# scripts/build.py, which does the work and remembers what is done; its output here is a stamp.
# Stamps of what is done are set before Snakemake starts, so that only the rest runs.


wildcard_constraints:
    cuda_tag="[a-z0-9]+",
    variant="[a-z0-9]+_torch[0-9]+",


localrules:
    all,


def stamp(job, stage):
    return f"{job}/{stage}.done"


def needed(needs):
    """The stamps before a stage: of the same job, or of the library that the variant's CUDA has."""

    def stamps(wildcards):
        job = dict(wildcards)
        library = job.get("cuda_tag") or job["variant"].partition("_")[0]
        own = job.get("variant") or library
        return [stamp(library if of_library else own, kind) for kind, of_library in needs]

    return stamps


def memory(megabytes):
    """For one thread, which is one compiler where a stage compiles."""
    return lambda wildcards, threads: megabytes * threads


rule all:
    input:
        [stamp(job, "publish") for job in (*config["variants"], *config["libraries"])],


for stage in config["stages"]:
    wildcard = stage["wildcard"]  # cuda_tag or variant
    base = f"{{{wildcard}}}/{stage['kind']}"

    rule:
        name:
            stage["name"]
        input:
            needed(stage["needs"]),
        output:
            touch(f"{base}.done"),
        params:
            call=config["build"] + [stage["option"]],
            words=["--stage", stage["kind"], *config["options"]],
            target=f"{{{wildcard}}}",
            record=f"{base}.json",
        log:
            f"{base}.log",
        benchmark:
            f"{base}.benchmark.tsv"
        threads: stage["threads"]
        retries: stage["retries"]
        resources:
            mem_mb=memory(stage["memory_mb"]),
            runtime=stage["minutes"],
        # What the program prints goes to the log; its record has what the stage cost.
        shell:
            "MAX_JOBS={threads} {params.call:q} {params.target:q} {params.words:q}"
            " --record {params.record:q} > {log:q} 2>&1"
