"""The main job: pins -> toolchain -> packages -> wheel -> verified, tried, published.

Everything is made, verified and tried under ``build/`` first; only then does it get its name in the
output folder. So what is published is whole, and a failure leaves the output as it was.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import atomic, bridge, builder, index, toolchain, try_out, verify
from .errors import BridgeError, ConfigError, TestsFailed
from .label import Label, Variant
from .ledger import Ledger, digest, file_digest, tree_digest
from .progress import Progress
from .stages import Log, Outcome, Stage, StageFailed, run_stages
from .variants import DEFAULT_VARIANT, VariantSpec, load, select

__all__ = ["BuildResult", "Pipeline", "Settings", "kernel_sources"]

_PACKAGE = "scripts/conda_bridge"
# What the bytes of libflashinfer, and of the binding over it, come from, beside csrc.
_KERNEL_SOURCES = (
    *("recipe", "version.txt", "LICENSE", "conda_build_config.yaml", "scripts/native.py"),
    *(f"{_PACKAGE}/{name}.py" for name in ("build_worker", "builder", "conda_writer", "label")),
    *(f"{_PACKAGE}/{name}.py" for name in ("measure", "native", "project")),
)
_BINDING_SOURCES = (
    *("csrc/torch", "csrc/include/flashinfer/api.h", "flashinfer", "setup.py", "pyproject.toml"),
    *("README.md", "MANIFEST.in", f"{_PACKAGE}/pep517.py"),
)
# What a stage's answer depends on beside its input.
_BRIDGE_CODE = (
    *("agreement.py", "bridge.py", "conda_package.py", "deflate_zip.py", "dependencies.py"),
    *("label.py", "tar_stream.py", "wheel.py"),
)
_VERIFY_CODE = (
    *("verify.py", "verify_binary.py", "verify_conda.py", "verify_wheel.py", "findings.py"),
    *("elf.py", "fatbin.py", "wheel_reader.py"),
)
_INDEX_CODE = ("index.py", "channel_index.py", "wheel_index.py")


def kernel_sources(root: Path) -> list[str]:
    """What libflashinfer is compiled from, below `root`: all of csrc but the binding.

    Not a list of names: :mod:`.native` compiles what lies there, and a file that no list has would
    change without a new build.
    """
    own = [f"csrc/{path.name}" for path in (root / "csrc").iterdir() if path.name != "torch"]
    return [*own, *_KERNEL_SOURCES]


@dataclass(frozen=True)
class Settings:
    """What the command line asked for; see ``scripts/build.py --help``."""

    root: Path
    cache: Path
    output: Path | None = None
    arch_list: str | None = None
    replace: bool = False
    nightly: str | None = None
    commit: str | None = None
    build_number: int | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def arch_suffix(self) -> str:
        """What sets a build for chosen architectures apart from the one of the label."""
        if not self.arch_list:
            return ""
        return "-" + re.sub(r"[^0-9A-Za-z.+]+", "_", self.arch_list.strip())

    @property
    def output_dir(self) -> Path:
        """Where the results go."""
        return (self.output or self.root / f"dist{self.arch_suffix}").resolve()

    @property
    def build_dir(self) -> Path:
        """Where everything is made before it is published."""
        return self.root / "build"


@dataclass(frozen=True)
class BuildResult:
    """What became of each variant."""

    output: Path
    dry_run: bool
    variants: dict[str, list[Outcome]]
    files: dict[str, list[Path]]
    failures: dict[str, BridgeError]

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
                "stages": [
                    {
                        "stage": outcome.stage,
                        "outcome": outcome.outcome,
                        "seconds": round(outcome.seconds, 2),
                        "log": outcome.log,
                        "facts": dict(outcome.facts),
                    }
                    for outcome in outcomes
                ],
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
        self.providers = toolchain.providers(settings.cache)

    def select(self, ids: Sequence[str] | None) -> list[VariantSpec]:
        """The variants with these ids; the default one for none."""
        return list(select(self.specs, list(dict.fromkeys(ids or [DEFAULT_VARIANT]))))

    def available(self) -> list[VariantSpec]:
        """The variants that a provider supplies on this machine."""
        return [
            spec for spec in self.specs if toolchain.supply(_request(spec), self.providers).provider
        ]

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

    def rows(self) -> list[dict[str, str]]:
        """For ``--list``: each variant, its names, and who supplies its toolchain here."""
        rows = []
        for spec in self.specs:
            label = self.label(spec.variant)
            supply = toolchain.supply(_request(spec), self.providers)
            rows.append(
                {
                    "variant": spec.variant.id,
                    "conda_file": label.conda_file,
                    "wheel_file": label.wheel_file,
                    "arch_list": spec.cuda_arch_list,
                    "provider": supply.provider or "",
                    "missing": supply.missing,
                }
            )
        return rows

    def run(
        self, specs: Sequence[VariantSpec], progress: Progress, *, dry_run: bool = False
    ) -> BuildResult:
        """Builds `specs` one after the other; a variant that fails does not stop the others.

        Raises:
            ConfigError: the checkout lies where compilers cannot work.
        """
        settings = self.settings
        if re.search(r"\s", str(settings.root)):
            raise ConfigError(
                "the project's path has a space in it",
                where=str(settings.root),
                expected="a path that compilers and conda's tools take unquoted",
                fix="move the checkout",
            )
        jobs = [_Job(settings, spec, self.label(spec.variant), self.providers) for spec in specs]
        stages = {job.name: job.stages() for job in jobs}
        progress.total = sum(map(len, stages.values()))
        result = BuildResult(settings.output_dir, dry_run, {}, {}, {})
        ledger = Ledger(settings.build_dir / "ledger")
        logs = settings.build_dir / "logs"
        for job in jobs:
            progress.note(f"{job.label.variant.id}  flashinfer {job.label.wheel_version}")
            result.files[job.name] = job.published
            outcomes: list[Outcome] = []
            result.variants[job.name] = outcomes
            try:
                for stage in stages[job.name]:
                    outcomes += run_stages([stage], ledger, logs, progress, dry_run=dry_run)
            except StageFailed as error:
                result.failures[job.name] = error
        return result


def _request(spec: VariantSpec) -> toolchain.Request:
    """What the toolchain of a variant has to have."""
    return toolchain.Request(spec.variant, gxx_below=int(spec.gxx_below), importable=True)


class _Job:
    """One variant's way from the toolchain to the published files."""

    def __init__(
        self,
        settings: Settings,
        spec: VariantSpec,
        label: Label,
        providers: Sequence[toolchain.Provider],
    ) -> None:
        self.settings = settings
        self.providers = providers
        self.label = label
        self.name = label.variant.id
        arch_list = settings.arch_list if settings.arch_list and label.variant.cuda else None
        self.spec = replace(spec, cuda_arch_list=arch_list) if arch_list else spec
        build, suffix = settings.build_dir, settings.arch_suffix
        self.packages = (
            build / "packages" / (label.variant.accelerator + suffix) / label.wheel_version
        )
        self.staging = build / "staging" / (label.variant.id + suffix) / label.wheel_version
        self.library = self.packages / "linux-64" / label.lib_conda_file
        self.binding = self.staging / "channel" / "linux-64" / label.conda_file
        self.staged_library = self.binding.with_name(label.lib_conda_file)
        self.wheel = self.staging / "wheels" / label.wheel_file
        self._toolchain: toolchain.Toolchain | None = None

    @property
    def published(self) -> list[Path]:
        """The files that a person is told about, under their final names."""
        output = self.settings.output_dir
        return [
            output / "channel" / "linux-64" / self.label.conda_file,
            output / "channel" / "linux-64" / self.label.lib_conda_file,
            output / "wheels" / self.label.wheel_file,
            output / "index" / self.label.index_dir / "flashinfer" / "index.html",
        ]

    def stages(self) -> list[Stage]:
        """The steps, in order; each reads what the one before it made."""
        name = self.name + self.settings.arch_suffix
        accelerator = self.label.variant.accelerator + self.settings.arch_suffix
        target = digest({"output": str(self.settings.output_dir)})[:8]
        return [
            Stage(
                "toolchain",
                f"{name}/toolchain",
                "toolchain",
                name,
                self._key_toolchain,
                self._run_toolchain,
            ),
            Stage(
                "library",
                f"{accelerator}/library",
                "libflashinfer (kernels)",
                accelerator,
                self._key_library,
                self._run_library,
            ),
            Stage(
                "binding",
                f"{name}/binding",
                "flashinfer (torch binding)",
                name,
                self._key_binding,
                self._run_binding,
            ),
            Stage(
                "wheel",
                f"{name}/wheel",
                "bridge to the wheel",
                name,
                self._key_wheel,
                self._run_wheel,
            ),
            Stage("verify", f"{name}/verify", "verify", name, self._key_verify, self._run_verify),
            Stage(
                "try-conda",
                f"{name}/try-conda",
                "install and run: conda",
                name,
                self._key_try,
                self._run_try_conda,
            ),
            Stage(
                "try-pip",
                f"{name}/try-pip",
                "install and run: pip",
                name,
                self._key_try,
                self._run_try_pip,
            ),
            Stage(
                "publish",
                f"{name}/publish-{target}",
                "channel and index",
                name,
                self._key_publish,
                self._run_publish,
                # Repodata and overview are every variant's.
                sound=lambda: index.consistent(self.settings.output_dir),
            ),
        ]

    # ------------------------------------------------------------ toolchain

    def _code(self, *names: str) -> str:
        return tree_digest(self.settings.root, [f"{_PACKAGE}/{name}" for name in names])

    def _key_toolchain(self) -> str:
        return digest(
            {
                "code": self._code("toolchain", "conda_writer.py"),
                "variant": self.name,
                "cache": str(self.settings.cache),
                "pip": {k: v for k, v in self.settings.environ.items() if k.startswith("PIP_")},
                "compiler": self.settings.environ.get("CXX", ""),
            }
        )

    def _tools(self, log: Log) -> toolchain.Toolchain:
        if self._toolchain is None:
            self._toolchain = toolchain.provide(
                _request(self.spec), self.providers, report=log.line
            )
        return self._toolchain

    def _run_toolchain(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        tools = self._tools(log)
        for item in tools.inputs:
            log.line(item)
        inputs = self._inputs_file
        lists = {"all": tools.inputs, "compiler": tools.compiler_inputs}
        atomic.write_text(inputs, json.dumps(lists, indent=1))
        summary = f"{tools.provider}, torch {tools.torch_version}"
        return [inputs], {"summary": summary, "provider": tools.provider}

    @property
    def _inputs_file(self) -> Path:
        return self.settings.build_dir / "inputs" / f"{self.name}.json"

    def _inputs(self, which: str) -> list[str]:
        """What the toolchain is made of: ``all``, or ``compiler`` (where torch has no part)."""
        found: list[str] = json.loads(self._inputs_file.read_text())[which]
        return found

    # ------------------------------------------------------------ packages

    def _key_library(self) -> str | None:
        if not self._inputs_file.is_file():
            return None
        return digest(
            {
                "sources": tree_digest(self.settings.root, kernel_sources(self.settings.root)),
                "inputs": self._inputs("compiler"),
                "archs": self.spec.cuda_arch_list,
                "label": self.label.lib_conda_file,
            }
        )

    def _build_environ(self) -> dict[str, str]:
        label = self.label
        environ = {
            "FLASHINFER_BUILD_VERSION": label.public_version,
            "FLASHINFER_BUILD_NUMBER": str(label.build_number),
            "FLASHINFER_BUILD_COMMIT": label.commit or "",
        }
        if self.settings.environ.get("MAX_JOBS"):
            environ["MAX_JOBS"] = self.settings.environ["MAX_JOBS"]
        return environ

    def _build(self, log: Log, output: str, into: Path, channels: Sequence[Path]) -> Path:
        tools = self._tools(log)
        return builder.build(
            self.settings.root / "recipe" / "recipe.yaml",
            self.spec,
            output,
            [*(path.resolve().as_uri() for path in channels), *tools.channels],
            into,
            variant_keys=tools.variant_keys,
            environ=self._build_environ(),
            work=self.settings.build_dir / "work",
            report=log.line,
        )

    def _run_library(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        atomic.remove(self.packages)
        made = self._build(log, "libflashinfer", self.packages, [])
        files = [made, *_repodata(self.packages)]
        return files, {"summary": _size(made), "archs": self.spec.cuda_arch_list}

    def _key_binding(self) -> str | None:
        if not self.library.is_file():
            return None
        return digest(
            {
                "sources": tree_digest(
                    self.settings.root, [*kernel_sources(self.settings.root), *_BINDING_SOURCES]
                ),
                "inputs": self._inputs("all"),
                "library": file_digest(self.library),
                "label": self.label.conda_file,
            }
        )

    def _run_binding(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        atomic.remove(self.staging)
        made = self._build(log, "flashinfer", self.staging / "channel", [self.packages])
        atomic.copy(self.library, self.staged_library)
        index.update_channel(self.staging / "channel", replace=True, prune=True)
        files = [made, self.staged_library, *_repodata(self.staging / "channel")]
        return files, {"summary": _size(made)}

    # ------------------------------------------------------------ wheel

    def _key_wheel(self) -> str | None:
        if not self.binding.is_file() or not self.staged_library.is_file():
            return None
        return digest(
            {
                "code": self._code(*_BRIDGE_CODE),
                "packages": [file_digest(self.binding), file_digest(self.staged_library)],
            }
        )

    def _run_wheel(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        made = bridge.bridge(self.binding, self.wheel.parent, overwrite=True)
        log.line(str(made.path))
        index.update_wheel_index(self.staging, replace=True, prune=True)
        pages = [path for path in (self.staging / "index").rglob("*") if path.is_file()]
        metadata = made.path.with_name(f"{made.path.name}.metadata")
        return [made.path, metadata, *sorted(pages)], {"summary": _size(made.path)}

    # ------------------------------------------------------------ proof

    def _artifacts(self) -> list[Path]:
        return [self.binding, self.staged_library, self.wheel]

    def _key_of_artifacts(self, code: str) -> str | None:
        if not all(path.is_file() for path in self._artifacts()):
            return None
        return digest({"code": code, "files": [file_digest(path) for path in self._artifacts()]})

    def _key_verify(self) -> str | None:
        return self._key_of_artifacts(self._code(*_VERIFY_CODE))

    def _run_verify(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        arch_list = self.spec.cuda_arch_list if self.label.variant.cuda else None
        report = verify.verify(self._artifacts(), arch_list=arch_list)
        for line in verify.as_lines(report):
            log.line(line)
        wrong = [*report.errors, *report.findings]
        if wrong:
            shown = "\n".join(f"  {item}" for item in wrong[:8])
            raise TestsFailed(f"{len(wrong)} findings:\n{shown}")
        return [], {"summary": f"{report.passed} checks", "archs": report.archs}

    def _key_try(self) -> str | None:
        return self._key_of_artifacts(
            self._code("try_out.py", "try_ops.py", "install_worker.py", "toolchain")
        )

    def _run_try_conda(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        tools = self._tools(log)
        ran = try_out.in_conda(
            self.staging / "channel",
            tools,
            self.label,
            work=self.settings.build_dir / "work",
            report=log.line,
        )
        return [], {"summary": ran.summary, "devices": list(ran.devices)}

    def _run_try_pip(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        tools = self._tools(log)
        ran = try_out.in_venv(
            self.staging,
            tools,
            self.label,
            work=self.settings.build_dir / "work",
            report=log.line,
        )
        return [], {"summary": ran.summary, "devices": list(ran.devices)}

    # ------------------------------------------------------------ publish

    def _key_publish(self) -> str | None:
        return self._key_of_artifacts(self._code(*_INDEX_CODE))

    def _run_publish(self, log: Log) -> tuple[list[Path], dict[str, object]]:
        output = self.settings.output_dir
        made = index.publish(
            self._artifacts(), output, replace=self.settings.replace, report=log.line
        )
        wheel = made[2]
        page = self.published[3]
        own = [wheel.with_name(f"{wheel.name}.metadata"), page, page.with_suffix(".json")]
        return [*made, *own], {"summary": os.path.relpath(output)}


def _repodata(channel: Path) -> list[Path]:
    return sorted(channel.glob("*/repodata.json*"))


def _size(path: Path) -> str:
    return f"{path.name}  {path.stat().st_size / 1e6:.2f} MB"
