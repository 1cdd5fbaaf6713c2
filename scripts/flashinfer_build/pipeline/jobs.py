"""The stages of a build: a library's, once per CUDA, and a variant's, once per CUDA and torch.

A stage reads the artifact of the stage before it and nothing else. What it makes lies below
``build/``, under a folder of its own, until the last stage publishes it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from conda_bridge.bridge import convert
from conda_bridge.config import TABLE, document
from conda_bridge.errors import ArtifactError, TestsFailed, ToolchainError
from conda_bridge.project import Project
from conda_bridge.publish import index, intake
from conda_bridge.system import atomic
from conda_bridge.verify import gate

from .. import toolchain
from ..compile import builder
from ..label import Label
from ..tryout import install
from ..variants import VariantSpec
from .code_key import code_key
from .ledger import digest, file_digest, tree_digest
from .settings import DEFAULT_PLATFORM, Settings
from .stages import Log, Made, Stage

__all__ = ["STAGES", "Job", "LibraryJob", "VariantJob", "kernel_sources", "request"]

STAGES = (
    *("compiler", "library", "toolchain", "binding", "wheel", "verify", "try-conda", "try-pip"),
    "publish",
)

# The stages that a build of the conda packages alone leaves out.
_OF_THE_WHEEL = ("wheel", "try-pip")

# What the bytes of libflashinfer, and of the binding over it, come from, beside csrc.
_KERNEL_SOURCES = ("recipe", "version.txt", "LICENSE", "scripts/native.py")
_BINDING_SOURCES = (
    *("csrc/torch", "csrc/include/flashinfer/api.h", "flashinfer", "setup.py", "README.md"),
    "MANIFEST.in",
)
# Of pyproject.toml, what the build of the binding reads, and what the stages after it do. The other
# tables are those of linters.
_BINDING_TABLES = ("build-system", "project", "tool.setuptools")
_HOOKS = "flashinfer_build.checks.hooks"  # imported by the name that the table has
# The modules that run where the packages' bytes are made; builder.py, which starts them, does not.
_KERNEL_CODE = (
    "flashinfer_build.compile.build_worker",
    "conda_bridge.formats.conda_writer",
    "flashinfer_build.label",
    "flashinfer_build.compile.measure",
    "flashinfer_build.compile.native",
    "flashinfer_build.compile.project",
)
_BINDING_CODE = (*_KERNEL_CODE, "flashinfer_build.compile.pep517")


def kernel_sources(root: Path) -> list[str]:
    """What libflashinfer is compiled from, below `root`: all of csrc but the binding.

    Not a list of names: :mod:`.compile.native` compiles what lies there, and a file that no list
    has would change without a new build.
    """
    own = [f"csrc/{path.name}" for path in (root / "csrc").iterdir() if path.name != "torch"]
    return [*own, *_KERNEL_SOURCES]


def tables(path: Path, names: Iterable[str]) -> dict[str, object]:
    """What these tables of a TOML file say, by name; None for one that is not there.

    Comments and the file's other tables do not count.

    Raises:
        ConfigError: the file is not there, or is not TOML.
    """
    found: dict[str, object] = {}
    for name in names:
        table: object = document(path)
        for part in name.split("."):
            table = table.get(part) if isinstance(table, dict) else None
        found[name] = table
    return found


def request(spec: VariantSpec, settings: Settings, *, torch: bool = True) -> toolchain.Request:
    """What the toolchain of a variant, or of its kernels alone, has to have."""
    return toolchain.Request(
        spec.variant,
        gxx_below=int(spec.gxx_below),
        gxx=spec.cxx_compiler_version,
        torch=torch,
        importable=torch,
        glibc=settings.glibc,
    )


class Job:
    """What a library's and a variant's way have in common.

    Attributes:
        name: what a person asks for, ``cu130`` or ``cu130_torch213``.
        folder: the same, with what sets this build apart; names ledger entries and folders.
        label: of what is built.
        spec: the pins, with the architectures that are asked for.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        spec: VariantSpec,
        label: Label,
        providers: Sequence[toolchain.Provider],
        *,
        torch: bool,
    ) -> None:
        self.name = name
        self.folder = name + settings.suffix
        self.settings = settings
        self.label = label
        self.providers = providers
        arch_list = settings.arch_list if settings.arch_list and label.variant.cuda else None
        self.spec = replace(spec, cuda_arch_list=arch_list) if arch_list else spec
        self._request = request(spec, settings, torch=torch)
        self._toolchain: toolchain.Toolchain | None = None

    @functools.cached_property
    def project(self) -> Project:
        """What ``[tool.conda-bridge]`` says of flashinfer."""
        return Project.load(self.settings.root / "pyproject.toml")

    def stages(self) -> list[Stage]:
        """The steps, in order."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What is built, for a person."""
        raise NotImplementedError

    @property
    def published(self) -> list[Path]:
        """The files that a person is told about, under their final names."""
        raise NotImplementedError

    def artifacts(self) -> list[Path]:
        """What is verified and published."""
        raise NotImplementedError

    # ------------------------------------------------------------ toolchain

    def code(self, *modules: str) -> str:
        """The digest of these modules and of what they import."""
        return code_key(self.settings.root / "scripts", modules)

    def _key_toolchain(self) -> str | None:
        try:
            channels = toolchain.state(self._request, self.providers)
        except ToolchainError:
            return None  # the stage itself will say which channel cannot be read
        environ = self.settings.environ
        return digest(
            {
                "channels": channels,
                "code": self.code(
                    "flashinfer_build.toolchain",
                    "flashinfer_build.toolchain.assembled",
                    "conda_bridge.formats.conda_writer",
                ),
                "request": vars(self._request),
                "cache": str(self.settings.cache),
                "pip": {k: v for k, v in environ.items() if k.startswith("PIP_")},
                "compiler": environ.get("CXX", ""),
            }
        )

    def tools(self, log: Log) -> toolchain.Toolchain:
        """The toolchain, made on first use."""
        if self._toolchain is None:
            self._toolchain = toolchain.provide(self._request, self.providers, report=log.line)
        return self._toolchain

    def _run_toolchain(self, log: Log) -> Made:
        tools = self.tools(log)
        for item in tools.inputs:
            log.line(item)
        inputs = self._inputs_file
        lists = {"all": tools.inputs, "compiler": tools.compiler_inputs}
        atomic.write_text(inputs, json.dumps(lists, indent=1))
        torch = f", torch {tools.torch_version}" if tools.torch_version else ""
        # With these two, conda's own builders use the same toolchain (docs/conda-builders.md).
        channels = " ".join(tools.channels)
        keys = " ".join(f"{key}={value}" for key, value in sorted(tools.variant_keys.items()))
        log.line(f"channel {channels}")
        log.line(f"variant keys {keys}")
        return [inputs], {
            "summary": f"{tools.provider}{torch}",
            "provider": tools.provider,
            "channels": channels,
            "variant_keys": keys,
        }

    @property
    def _inputs_file(self) -> Path:
        return self.settings.build_dir / "inputs" / f"{self.folder}.json"

    def _inputs(self, which: str) -> list[str] | None:
        """What the toolchain is made of: ``all``, or ``compiler`` (where torch has no part)."""
        try:
            found: list[str] = json.loads(self._inputs_file.read_text())[which]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # not there, or damaged: it is written anew
        return found

    # ------------------------------------------------------------ packages

    def build(self, log: Log, output: str, into: Path, channels: Sequence[Path]) -> Path:
        """Has the builder make the package `output`, and puts it into the channel `into`."""
        tools = self.tools(log)
        label = self.label
        environ = {
            "FLASHINFER_BUILD_VERSION": label.public_version,
            "FLASHINFER_BUILD_NUMBER": str(label.build_number),
            "FLASHINFER_BUILD_COMMIT": label.commit or "",
        }
        if self.settings.environ.get("MAX_JOBS"):
            environ["MAX_JOBS"] = self.settings.environ["MAX_JOBS"]
        return builder.build(
            self.settings.root / "recipe" / "recipe.yaml",
            self.spec,
            output,
            [*(path.resolve().as_uri() for path in channels), *tools.channels],
            into,
            variant_keys=tools.variant_keys,
            environ=environ,
            work=self.settings.build_dir / "work",
            report=log.line,
        )

    # ------------------------------------------------------------ proof, publication

    def key_of_artifacts(self, *modules: str) -> str | None:
        """The digest of the artifacts and of the code that looks at them."""
        artifacts = self.artifacts()
        if not all(path.is_file() for path in artifacts):
            return None
        files = [[path.name, file_digest(path)] for path in artifacts]
        return digest({"code": self.code(*modules), "files": files, "config": self._config})

    @property
    def _config(self) -> object:
        return tables(self.settings.root / "pyproject.toml", [TABLE])

    def _key_verify(self) -> str | None:
        return self.key_of_artifacts("conda_bridge.verify.gate", _HOOKS)

    def _run_verify(self, log: Log) -> Made:
        arch_list = self.spec.cuda_arch_list if self.label.variant.cuda else None
        report = gate.verify(self.artifacts(), project=self.project, arch_list=arch_list)
        for line in gate.as_lines(report):
            log.line(line)
        wrong = [*report.errors, *report.findings]
        if wrong:
            shown = "\n".join(f"  {item}" for item in wrong[:8])
            raise TestsFailed(f"{len(wrong)} findings:", log=shown)
        return [], {"summary": f"{report.passed} checks", "archs": report.archs}

    @property
    def _publish_name(self) -> str:
        """Of the ledger entry: one for each output folder."""
        target = digest({"output": str(self.settings.output_dir)})[:8]
        return f"{self.folder}/publish-{target}"

    def _key_publish(self) -> str | None:
        return self.key_of_artifacts("conda_bridge.publish.index", _HOOKS)

    def _run_publish(self, log: Log) -> Made:
        output = self.settings.output_dir
        index.publish(
            self.artifacts(),
            output,
            project=self.project,
            replace=self.settings.replace,
            report=log.line,
        )
        return self._recorded(), {"summary": os.path.relpath(output, self.settings.root)}

    def _recorded(self) -> list[Path]:
        """What the publication writes of this job alone."""
        return self.published

    def _sound(self) -> bool:
        """Whether repodata, pages and overview, which are every job's, agree with each other."""
        return index.consistent(self.settings.output_dir, self.project)


class LibraryJob(Job):
    """One CUDA's way, or the CPU's: compiler, kernels, their package, published without any torch.

    Args:
        settings: what was asked for.
        spec: any variant of that CUDA; always the same one, so that nothing differs.
        label: of that variant.
        providers: of toolchains.
    """

    def __init__(
        self,
        settings: Settings,
        spec: VariantSpec,
        label: Label,
        providers: Sequence[toolchain.Provider],
    ) -> None:
        name = label.variant.cuda_tag
        super().__init__(name, settings, spec, label, providers, torch=False)
        build = Path(label.lib_conda_file).stem
        self.channel = settings.build_dir / "packages" / self.folder / build
        self.library = self.channel / "linux-64" / label.lib_conda_file

    @property
    def title(self) -> str:
        """``libflashinfer 0.1.6``."""
        return f"libflashinfer {self.label.public_version}"

    @property
    def published(self) -> list[Path]:
        """The package."""
        return [self.settings.output_dir / "channel" / "linux-64" / self.label.lib_conda_file]

    def artifacts(self) -> list[Path]:
        """The package."""
        return [self.library]

    def compile_stages(self) -> list[Stage]:
        """The stages that a variant needs done, too."""
        name = self.folder
        return [
            Stage(
                "compiler",
                f"{name}/compiler",
                "compiler for the kernels",
                f"{name}/compiler",
                self._key_toolchain,
                self._run_toolchain,
            ),
            Stage(
                "library",
                f"{name}/library",
                "libflashinfer (kernels)",
                name,
                self._key_library,
                self._run_library,
                needs=("compiler",),
            ),
        ]

    def stages(self) -> list[Stage]:
        """The steps, in order."""
        name = self.folder
        return [
            *self.compile_stages(),
            Stage(
                "verify",
                f"{name}/verify",
                "verify",
                f"{name}/verify",
                self._key_verify,
                self._run_verify,
                needs=("library",),
                reads=(name,),
            ),
            Stage(
                "publish",
                self._publish_name,
                "channel",
                f"{name}/publish",
                self._key_publish,
                self._run_publish,
                needs=("verify",),
                reads=(name,),
                sound=self._sound,
            ),
        ]

    def _key_library(self) -> str | None:
        inputs = self._inputs("compiler")
        if inputs is None:
            return None
        root = self.settings.root
        return digest(
            {
                "sources": tree_digest(root, kernel_sources(root)),
                "code": self.code(*_KERNEL_CODE),
                "inputs": inputs,
                # Of any row of this CUDA: what names its torch has no part in the kernels.
                "pins": {**self.spec.as_mapping(), "pytorch": "", "flashinfer_variant": ""},
                "label": self.label.lib_conda_file,
            }
        )

    def _run_library(self, log: Log) -> Made:
        atomic.remove(self.channel)
        made = self.build(log, "libflashinfer", self.channel, [])
        files = [made, *_documents(self.channel)]
        return files, {"summary": _size(made), "archs": self.spec.cuda_arch_list}


class VariantJob(Job):
    """One variant's way from the toolchain to the published files.

    Args:
        settings: what was asked for.
        spec: the variant's pins.
        label: what it will be named.
        providers: of toolchains.
        library: the job that makes its libflashinfer.
    """

    def __init__(
        self,
        settings: Settings,
        spec: VariantSpec,
        label: Label,
        providers: Sequence[toolchain.Provider],
        library: LibraryJob,
    ) -> None:
        super().__init__(label.variant.id, settings, spec, label, providers, torch=True)
        self.kernels = library
        self.staging = settings.build_dir / "staging" / self.folder / Path(label.conda_file).stem
        self.binding = self.staging / "channel" / "linux-64" / label.conda_file
        self.staged_library = self.binding.with_name(label.lib_conda_file)

    @property
    def title(self) -> str:
        """``flashinfer 0.1.6+cu124torch2.4``."""
        return f"flashinfer {self.label.wheel_version}"

    @property
    def wheel(self) -> Path:
        """The wheel; what name its platform gave it is known once it is there."""
        folder = self.staging / "wheels"
        usual = folder / self.label.wheel_file
        if self.settings.platform_tag == DEFAULT_PLATFORM:
            return usual
        found = sorted(folder.glob("[!.]*.whl"))
        return found[0] if len(found) == 1 else usual

    @property
    def published(self) -> list[Path]:
        """The packages, the wheel and the page for pip."""
        output = self.settings.output_dir
        packages = [
            output / "channel" / "linux-64" / self.label.conda_file,
            output / "channel" / "linux-64" / self.label.lib_conda_file,
        ]
        if not self.settings.wheel:
            return packages
        return [
            *packages,
            output / "wheels" / self.wheel.name,
            output / "index" / self.label.index_dir / "flashinfer" / "index.html",
        ]

    def _recorded(self) -> list[Path]:
        if not self.settings.wheel:
            return self.published
        *_, wheel, page = self.published
        return [*self.published, _metadata(wheel), page.with_suffix(".json")]

    def artifacts(self) -> list[Path]:
        """The packages and the wheel, before they are published."""
        packages = [self.binding, self.staged_library]
        return [*packages, self.wheel] if self.settings.wheel else packages

    def stages(self) -> list[Stage]:
        """The steps, in order; each reads what the ones before it made."""
        stages = self._all_stages()
        if self.settings.wheel:
            return stages
        kept = [stage for stage in stages if stage.kind not in _OF_THE_WHEEL]
        # What would follow the wheel follows the package that it would be made of.
        return [replace(stage, needs=_without_wheel(stage.needs)) for stage in kept]

    def _all_stages(self) -> list[Stage]:
        name = self.folder
        return [
            Stage(
                "toolchain",
                f"{name}/toolchain",
                "toolchain",
                f"{name}/toolchain",
                self._key_toolchain,
                self._run_toolchain,
            ),
            *self.kernels.compile_stages(),
            Stage(
                "binding",
                f"{name}/binding",
                "flashinfer (torch binding)",
                name,
                self._key_binding,
                self._run_binding,
                needs=("toolchain", "library"),
                reads=(self.kernels.folder,),
            ),
            Stage(
                "wheel",
                f"{name}/wheel",
                "bridge to the wheel",
                name,
                self._key_wheel,
                self._run_wheel,
                needs=("binding",),
            ),
            Stage(
                "verify",
                f"{name}/verify",
                "verify",
                f"{name}/verify",
                self._key_verify,
                self._run_verify,
                needs=("wheel",),
                reads=(name,),
            ),
            Stage(
                "try-conda",
                f"{name}/try-conda",
                "install and run: conda",
                f"{name}/try-conda",
                self._key_try,
                self._run_try_conda,
                needs=("wheel",),
                reads=(name,),
            ),
            Stage(
                "try-pip",
                f"{name}/try-pip",
                "install and run: pip",
                f"{name}/try-pip",
                self._key_try,
                self._run_try_pip,
                needs=("wheel",),
                reads=(name,),
            ),
            Stage(
                "publish",
                self._publish_name,
                "channel and index",
                f"{name}/publish",
                self._key_publish,
                self._run_publish,
                needs=("verify", "try-conda", "try-pip"),
                reads=(name,),
                sound=self._sound,
            ),
        ]

    # ------------------------------------------------------------ conda package

    def _key_binding(self) -> str | None:
        inputs = self._inputs("all")
        if inputs is None or not self.kernels.library.is_file():
            return None
        root = self.settings.root
        return digest(
            {
                "sources": tree_digest(root, [*kernel_sources(root), *_BINDING_SOURCES]),
                "tables": tables(root / "pyproject.toml", _BINDING_TABLES),
                "code": self.code(*_BINDING_CODE),
                "inputs": inputs,
                "pins": self.spec.as_mapping(),
                "library": file_digest(self.kernels.library),
                "label": self.label.conda_file,
            }
        )

    def _run_binding(self, log: Log) -> Made:
        # Under this stage's lock: nobody reads the folder now, and a half of an earlier one goes.
        atomic.remove(self.staging)
        made = self.build(log, "flashinfer", self.staging / "channel", [self.kernels.channel])
        atomic.copy(self.kernels.library, self.staged_library)
        index.update_channel(
            self.staging / "channel", project=self.project, replace=True, prune=True
        )
        files = [made, self.staged_library, *_documents(self.staging / "channel")]
        return files, {"summary": _size(made)}

    # ------------------------------------------------------------ wheel

    def _key_wheel(self) -> str | None:
        if not self.binding.is_file() or not self.staged_library.is_file():
            return None
        return digest(
            {
                "code": self.code(
                    "conda_bridge.bridge.convert", "conda_bridge.publish.index", _HOOKS
                ),
                "config": self._config,
                "packages": [file_digest(self.binding), file_digest(self.staged_library)],
                "platform": self.settings.platform_tag,
            }
        )

    def _run_wheel(self, log: Log) -> Made:
        folder = self.staging / "wheels"
        made = convert.bridge(
            self.binding,
            folder,
            project=self.project,
            platform_tag=self.settings.platform_tag,
            overwrite=True,
        )
        log.line(str(made.path))
        for other in set(folder.glob("*.whl")) - {made.path}:
            other.unlink()  # of another platform tag
        if [made.path] != sorted(folder.glob("*.whl")):
            raise ArtifactError(
                f"{made.path.name} is not there", where=str(folder), expected="one wheel"
            )
        index.update_wheel_index(self.staging, project=self.project, replace=True, prune=True)
        pages = [path for path in (self.staging / "index").rglob("*") if path.is_file()]
        files = [made.path, _metadata(made.path), *sorted(pages)]
        return files, {"summary": _size(made.path)}

    # ------------------------------------------------------------ proof

    def _key_try(self) -> str | None:
        return self.key_of_artifacts(
            "flashinfer_build.tryout.install",
            "flashinfer_build.toolchain",
            "flashinfer_build.toolchain.assembled",
        )

    def _run_try_conda(self, log: Log) -> Made:
        tools = self.tools(log)
        ran = install.in_conda(
            self.staging / "channel",
            tools,
            self.label,
            work=self.settings.build_dir / "work",
            report=log.line,
        )
        return [], {"summary": ran.summary, "devices": list(ran.devices)}

    def _run_try_pip(self, log: Log) -> Made:
        tools = self.tools(log)
        ran = install.in_venv(
            self.staging,
            tools,
            self.label,
            work=self.settings.build_dir / "work",
            report=log.line,
        )
        return [], {"summary": ran.summary, "devices": list(ran.devices)}


def _without_wheel(needs: Sequence[str]) -> tuple[str, ...]:
    named = ["binding" if kind == "wheel" else kind for kind in needs]
    return tuple(kind for kind in named if kind not in _OF_THE_WHEEL)


def _documents(channel: Path) -> list[Path]:
    """What the index wrote there: all but the packages, and its own memory of them."""
    files = (path for path in channel.rglob("*") if path.is_file())
    return sorted(
        path for path in files if path.name[0] != "." and not intake.is_artifact(path.name)
    )


def _metadata(wheel: Path) -> Path:
    """The file beside a wheel that pip reads instead of it."""
    return wheel.with_name(f"{wheel.name}.metadata")


def _size(path: Path) -> str:
    return f"{path.name}  {path.stat().st_size / 1e6:.2f} MB"
