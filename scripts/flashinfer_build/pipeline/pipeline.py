"""The main job: pins -> toolchain -> packages -> wheel -> verified, tried, published.

Everything is made, verified and tried under ``build/`` first; only then does it get its name in the
output folder. So what is published is whole, and a failure leaves the output as it was. The stages
themselves are in :mod:`.jobs`; here they are put in order for what was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conda_bridge.errors import BridgeError, ConfigError
from conda_bridge.system.progress import Progress

from .. import bootstrap, toolchain
from ..label import Label, Variant
from ..variants import CONFIG_FILE, DEFAULT_VARIANT, OTHER_CHANNELS, VariantSpec, load, select
from .jobs import Job, LibraryJob, VariantJob, kernel_sources, request
from .ledger import Ledger, file_digest
from .settings import Settings
from .stages import Outcome, Stage, StageFailed, first_missing, run_stages

__all__ = ["BuildResult", "Pipeline", "Settings", "kernel_sources"]


@dataclass(frozen=True)
class BuildResult:
    """What became of each job.

    Attributes:
        output: the folder of the results.
        dry_run: whether nothing was to be done.
        variants: the outcomes of each variant, or of each CUDA's library, by its name.
        files: what each has published.
        failures: what went wrong.
        partial: whether only a stage was asked for.
    """

    output: Path
    dry_run: bool
    variants: dict[str, list[Outcome]]
    files: dict[str, list[Path]]
    failures: dict[str, BridgeError]
    partial: bool = False

    @property
    def exit_code(self) -> int:
        """0, or the highest of the failures' codes."""
        codes = [getattr(error, "code", error.exit_code) for error in self.failures.values()]
        return max(codes, default=0)

    @property
    def unchanged(self) -> bool:
        """Whether nothing had to be done."""
        outcomes = [outcome for stages in self.variants.values() for outcome in stages]
        return not self.failures and all(outcome.outcome == "kept" for outcome in outcomes)

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        variants = {}
        for name, outcomes in self.variants.items():
            error = self.failures.get(name)
            variants[name] = {
                "stages": [outcome.as_dict() for outcome in outcomes],
                "files": [
                    {"path": str(path), "sha256": file_digest(path), "size": path.stat().st_size}
                    for path in self.files.get(name, [])
                    if path.is_file()
                ],
                "error": error.as_dict() if error else None,
            }
        return {
            "schema": 1,
            "output": str(self.output),
            "dry_run": self.dry_run,
            "unchanged": self.unchanged,
            "variants": variants,
        }


class Pipeline:
    """Builds variants from one checkout.

    Raises:
        ConfigError: ``conda_build_config.yaml`` cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.specs = load(settings.root / "conda_build_config.yaml")
        self.providers = toolchain.providers(settings.cache, settings.channels)

    def select(self, ids: Sequence[str] | None) -> list[VariantSpec]:
        """The variants with these ids; the default one for none."""
        return list(select(self.specs, list(dict.fromkeys(ids or [DEFAULT_VARIANT]))))

    def supply(
        self, spec: VariantSpec, *, torch: bool = True, any_compiler: bool = False
    ) -> toolchain.Supply:
        """Who supplies the toolchain of a variant on this machine.

        Args:
            spec: the variant.
            torch: False for its kernels alone.
            any_compiler: leave it to the machine that builds whether its C++ compiler is too new.
        """
        wanted = request(spec, self.settings, torch=torch)
        if any_compiler:
            wanted = replace(wanted, gxx_below=None, gxx=None)
        return toolchain.supply(wanted, self.providers)

    def available(self) -> list[VariantSpec]:
        """The variants that a provider supplies on this machine."""
        return [spec for spec, supply in self._supplies() if supply.provider]

    def _supplies(self) -> list[tuple[VariantSpec, toolchain.Supply]]:
        """All variants with who supplies them; channels are read once."""
        requests = [request(spec, self.settings) for spec in self.specs]
        return list(zip(self.specs, toolchain.supplies(requests, self.providers), strict=True))

    @property
    def cuda_tags(self) -> list[str]:
        """Those of the matrix, in its order."""
        return list(dict.fromkeys(spec.variant.cuda_tag for spec in self.specs))

    def representative(self, cuda_tag: str) -> VariantSpec:
        """The variant whose pins the kernels of `cuda_tag` are compiled with.

        Raises:
            ConfigError: the matrix does not have it.
        """
        for spec in self.specs:
            if spec.variant.cuda_tag == cuda_tag:
                return spec
        raise ConfigError(
            f"{cuda_tag!r} is no CUDA tag of the matrix",
            where="conda_build_config.yaml",
            expected=", ".join(self.cuda_tags),
        )

    def label(self, variant: Variant) -> Label:
        """The label that a build of `variant` would get now."""
        settings = self.settings
        return Label.compose(
            variant,
            environ=settings.environ,
            nightly=settings.nightly,
            commit=settings.commit,
            build_number=settings.build_number,
        )

    def library(self, cuda_tag: str) -> LibraryJob:
        """The job that makes libflashinfer for `cuda_tag`.

        Raises:
            ConfigError: the matrix does not have it.
        """
        spec = self.representative(cuda_tag)
        return LibraryJob(self.settings, spec, self.label(spec.variant), self.providers)

    def job(self, spec: VariantSpec) -> VariantJob:
        """The job that makes a variant."""
        label = self.label(spec.variant)
        library = self.library(spec.variant.cuda_tag)
        return VariantJob(self.settings, spec, label, self.providers, library)

    @property
    def ledger(self) -> Ledger:
        """What was done already."""
        return Ledger(self.settings.build_dir / "ledger")

    def rows(self) -> list[dict[str, str]]:
        """For ``--list``: each variant, its names, and where its toolchain comes from here."""
        rows = []
        for spec, supply in self._supplies():
            label = self.label(spec.variant)
            rows.append(
                {
                    "variant": spec.variant.id,
                    "conda_file": label.conda_file,
                    "wheel_file": label.wheel_file,
                    "arch_list": spec.cuda_arch_list,
                    "variant_file": CONFIG_FILE.name if spec.on_conda_forge else OTHER_CHANNELS,
                    "provider": supply.provider or "",
                    "missing": supply.missing,
                }
            )
        return rows

    def run(
        self,
        specs: Iterable[VariantSpec],
        progress: Progress,
        *,
        libraries: Iterable[str] = (),
        stage: str | None = None,
        kernels: bool = True,
        dry_run: bool = False,
    ) -> BuildResult:
        """Builds one thing after the other; one that fails does not stop the others.

        Args:
            specs: variants.
            progress: is told what happens.
            libraries: CUDA tags to build libflashinfer for, without any torch.
            stage: the kind of the only stage to run of each; all it needs has to be done.
            kernels: False to fail rather than compile kernels, which another machine has built.
            dry_run: only say what is due.

        Raises:
            ConfigError: the checkout lies where the builders cannot work, there is no such
                CUDA tag or no such stage.
        """
        settings = self.settings
        bootstrap.check_places(builds=True, root=settings.root)
        jobs: list[Job] = [*map(self.library, libraries), *map(self.job, specs)]
        result = BuildResult(settings.output_dir, dry_run, {}, {}, {}, partial=bool(stage))
        progress.total = sum(len(job.stages()) for job in jobs) if not stage else len(jobs)
        logs = settings.build_dir / "logs"
        for job in jobs:
            progress.note(f"{job.name}  {job.title}")
            outcomes: list[Outcome] = []
            result.variants[job.name] = outcomes
            try:
                for one in job.stages():
                    if stage and one.kind != stage:
                        continue
                    if stage:
                        _check_needs(job, stage, self.ledger)
                    if one.kind == "library" and not kernels:
                        _check_built(one, self.ledger)
                    outcomes += run_stages([one], self.ledger, logs, progress, dry_run=dry_run)
                if stage and not outcomes:
                    first_missing(job.stages(), stage, self.ledger)  # says which there are
            except (StageFailed, ConfigError) as error:
                result.failures[job.name] = error
            result.files[job.name] = job.published
        return result


def _check_needs(job: Job, kind: str, ledger: Ledger) -> None:
    """Raises ConfigError unless all that the stage needs is done."""
    missing = first_missing(job.stages(), kind, ledger)
    if missing is None:
        return
    option = "--variant" if isinstance(job, VariantJob) else "--library"
    raise ConfigError(
        f"the stage {missing.kind!r} is not done, or something it is made from has changed since",
        where=f"stage {kind}",
        fix=f"python scripts/build.py {option} {job.name} --stage {missing.kind}",
    )


def _check_built(library: Stage, ledger: Ledger) -> None:
    """Raises ConfigError unless the kernels are there, made of what is here."""
    if library.done(ledger) is None:
        raise ConfigError(
            "the kernels are not built, or were built with another compiler or other sources",
            where=library.name,
            expected="the packages/, inputs/ and ledger/ that the machine has which built them",
            fix="build them on a machine with the same compiler, or allow it here",
        )
