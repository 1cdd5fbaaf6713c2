"""What the matrix runs: which variants and libraries, in which stages, with what resources.

The plan is data for ``scripts/matrix.smk``. Memory is counted per thread: a stage that compiles
runs as many compilers as it has threads, so a small machine runs fewer, and never out of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conda_bridge.errors import ConfigError

from ..compile.native import BINDING_JOB_MEMORY, CUDA_JOB_MEMORY
from ..pipeline.jobs import Job, LibraryJob, VariantJob
from ..pipeline.pipeline import Pipeline
from ..pipeline.stages import Stage

__all__ = ["Missing", "Plan", "plan"]

_MB = 1 << 20
# Of a stage that compiles nothing; docs/matrix.md has the peaks of real runs.
_MEMORY_MB = {"try-conda": 1024, "try-pip": 1024}
_OTHER_MEMORY_MB = 512
# Time limits on a cluster, ten times and more what real runs took (docs/matrix.md).
_MINUTES = {"library": 120, "toolchain": 60, "compiler": 60}
_OTHER_MINUTES = 30
_DOWNLOADS = ("compiler", "toolchain")
_RETRIES = 2


@dataclass(frozen=True)
class Missing:
    """A variant, or a CUDA tag, that cannot be built here.

    Attributes:
        name: its id.
        reason: what is missing.
        asked: whether it was asked for by name.
    """

    name: str
    reason: str
    asked: bool


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        libraries: the jobs of the CUDA tags whose kernels are published without a torch.
        variants: the jobs of the variants.
        missing: what was left out.
    """

    libraries: tuple[LibraryJob, ...]
    variants: tuple[VariantJob, ...]
    missing: tuple[Missing, ...]

    @property
    def jobs(self) -> list[Job]:
        """All that has a folder of its own: libraries, those of the variants too, and variants."""
        kernels: dict[str, Job] = {job.name: job for job in self.libraries}
        for variant in self.variants:
            kernels.setdefault(variant.kernels.name, variant.kernels)
        return [*kernels.values(), *self.variants]

    def stages_of(self, job: Job) -> list[Stage]:
        """The stages of `job` that this plan runs, without those of its library."""
        if isinstance(job, VariantJob):
            shared = {stage.name for stage in job.kernels.stages()}
            return [stage for stage in job.stages() if stage.name not in shared]
        assert isinstance(job, LibraryJob)
        published = {library.name for library in self.libraries}
        return job.stages() if job.name in published else job.compile_stages()

    def as_config(self, build: Sequence[str], options: Sequence[str], threads: int) -> object:
        """The configuration of ``matrix.smk``.

        Args:
            build: the command that starts ``build.py``.
            options: what it is always given.
            threads: how many compilers a stage may run at once.
        """
        stages = []
        if self.jobs:
            libraries = [job for job in self.jobs if isinstance(job, LibraryJob)]
            stages += [_rule(stage, "cuda_tag", set(), threads) for stage in libraries[0].stages()]
        if self.variants:
            kernels = {stage.kind for stage in self.variants[0].kernels.compile_stages()}
            stages += [
                _rule(stage, "variant", kernels, threads)
                for stage in self.stages_of(self.variants[0])
            ]
        return {
            "build": list(build),
            "options": list(options),
            "libraries": [job.name for job in self.libraries],
            "variants": [job.name for job in self.variants],
            "stages": stages,
        }


def _rule(stage: Stage, wildcard: str, of_library: set[str], threads: int) -> dict[str, object]:
    compiles = {"library": CUDA_JOB_MEMORY, "binding": BINDING_JOB_MEMORY}
    kind = stage.kind
    return {
        "kind": kind,
        "name": f"{wildcard}_{kind}".replace("-", "_"),
        "wildcard": wildcard,
        "option": "--library" if wildcard == "cuda_tag" else "--variant",
        "needs": [[need, need in of_library] for need in stage.needs],
        "threads": threads if kind in compiles else 1,
        "memory_mb": (
            compiles[kind] // _MB if kind in compiles else _MEMORY_MB.get(kind, _OTHER_MEMORY_MB)
        ),
        "minutes": _MINUTES.get(kind, _OTHER_MINUTES),
        "retries": _RETRIES if kind in _DOWNLOADS else 0,
    }


def plan(
    pipeline: Pipeline,
    *,
    variants: Sequence[str] = (),
    cuda_tags: Sequence[str] = (),
    libraries: Sequence[str] = (),
) -> Plan:
    """What to run for what was asked; the whole matrix when nothing was.

    Args:
        pipeline: of the checkout.
        variants: ids of variants.
        cuda_tags: whose variants are all wanted.
        libraries: CUDA tags whose kernels alone are wanted.

    Raises:
        ConfigError: a name that the matrix does not have.
    """
    missing: list[Missing] = []
    chosen = {spec.id: True for spec in pipeline.select(variants)} if variants else {}
    for cuda_tag in cuda_tags:
        pipeline.representative(cuda_tag)
    everything = not (variants or cuda_tags or libraries)
    for spec in pipeline.specs:
        if everything or spec.variant.cuda_tag in cuda_tags:
            chosen.setdefault(spec.id, False)
    jobs = []
    for spec in pipeline.specs:
        if spec.id not in chosen:
            continue
        supply = pipeline.supply(spec)
        if supply.provider:
            jobs.append(pipeline.job(spec))
        else:
            missing.append(Missing(spec.id, supply.missing, chosen[spec.id]))
    kernels = []
    for cuda_tag in dict.fromkeys(libraries):
        supply = pipeline.supply(pipeline.representative(cuda_tag), torch=False)
        if supply.provider:
            kernels.append(pipeline.library(cuda_tag))
        else:
            missing.append(Missing(cuda_tag, supply.missing, True))
    if not jobs and not kernels:
        reasons = "\n".join(f"  {item.name}: {item.reason}" for item in missing)
        raise ConfigError(
            "nothing that was asked for can be built here:",
            log=reasons,
            fix="python scripts/build.py --list shows what can be built here",
        )
    return Plan(tuple(kernels), tuple(jobs), tuple(missing))
