"""What each stage's key is made of: every input counts, and nothing else does.

A key that forgets an input keeps what an earlier build made of another one, and every other test
stays green.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conda_bridge.system import atomic
from flashinfer_build.pipeline.jobs import LibraryJob, VariantJob
from flashinfer_build.pipeline.pipeline import Pipeline
from flashinfer_build.pipeline.settings import Settings

TOOLCHAINS = {"compiler", "toolchain"}
# What is made of the two packages, and of what was made of them.
OF_PACKAGES = {"wheel", "verify", "try-conda", "try-pip", "publish"}


@dataclass
class Site:
    """A checkout in which every stage's input is there."""

    settings: Settings

    def job(self) -> VariantJob:
        pipeline = Pipeline(self.settings)
        [spec] = pipeline.select(["cpu_torch213"])
        return pipeline.job(spec)

    def keys(self) -> dict[str, str]:
        job = self.job()
        made = {stage.kind: stage.key() for stage in [*job.kernels.stages(), *job.stages()]}
        assert None not in made.values(), made
        return {kind: str(key) for kind, key in made.items()}

    def write(self) -> None:
        """The toolchains' lists and the packages, all made up."""
        job = self.job()
        for name in ("cpu", "cpu_torch213"):
            lists = {"all": ["torch 1", "g++ 1"], "compiler": ["g++ 1"]}
            atomic.write_text(self.inputs(name), json.dumps(lists))
        for path in (job.kernels.library, job.binding, job.staged_library, job.wheel):
            atomic.write_text(path, path.name)

    def inputs(self, name: str) -> Path:
        return self.settings.build_dir / "inputs" / f"{name}.json"

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert re.search(old, text), path
        atomic.write_text(path, re.sub(old, new, text))

    def change(self, **settings: object) -> None:
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for every copy: what was read of a file there is known until the file changes."""
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def site(root: Path, place: Path) -> Site:
    shutil.rmtree(place)
    checkout = place / "checkout"
    checkout.mkdir(parents=True)
    for name in ("csrc", "flashinfer", "recipe", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "lib", "_build_info.py")
        shutil.copytree(root / name, checkout / name, ignore=ignored)
    for path in root.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, checkout)
    made = Site(Settings(checkout, place / "cache", environ={"HOME": "/h"}))
    made.write()
    return made


def of(*names: str) -> Callable[[Site], None]:
    """Changes the bytes of a file of the checkout."""

    def change(site: Site) -> None:
        for name in names:
            with (site.settings.root / name).open("a") as stream:
                stream.write("\n")

    return change


def pin(key: str, old: str, new: str) -> Callable[[Site], None]:
    """Changes every value of a list of conda_build_config.yaml."""

    def change(site: Site) -> None:
        path = site.settings.root / "conda_build_config.yaml"
        site.edit(path, rf'(?s)(\n{key}:\n(?:[^\n]+\n)*?  - "){old}(?=")', rf"\g<1>{new}")
        other = site.settings.root / "recipe/other_channels.yaml"
        site.edit(other, rf'(?s)(\n{key}:\n(?:[^\n]+\n)*?  - "){old}(?=")', rf"\g<1>{new}")

    return change


def toml(old: str, new: str) -> Callable[[Site], None]:
    """Changes pyproject.toml."""
    return lambda site: site.edit(site.settings.root / "pyproject.toml", old, new)


def environ(**values: str) -> Callable[[Site], None]:
    return lambda site: site.change(environ={**site.settings.environ, **values})


def setting(**values: object) -> Callable[[Site], None]:
    return lambda site: site.change(**values)


def inputs(name: str, old: str) -> Callable[[Site], None]:
    return lambda site: site.edit(site.inputs(name), old, "another")


def bytes_of(attribute: str) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        path = getattr(site.job(), attribute)
        atomic.write_text(path, "other bytes")

    return change


def bytes_of_kernels(site: Site) -> None:
    atomic.write_text(site.job().kernels.library, "other bytes")


CHANGES: dict[str, tuple[Callable[[Site], None], set[str]]] = {
    "nothing": (lambda _site: None, set()),
    # toolchain
    "CXX": (environ(CXX="g++-13"), TOOLCHAINS),
    "an option of pip": (environ(PIP_INDEX_URL="https://example.org/simple"), TOOLCHAINS),
    "a variable that nothing reads": (environ(EDITOR="vi"), set()),
    "the cache": (setting(cache=Path("/elsewhere")), TOOLCHAINS),
    # pins
    "the C library": (pin("c_stdlib_version", "2.28", "2.17"), {"library", "binding"}),
    "the C++ compiler": (pin("cxx_compiler", "gxx", "other"), {"library", "binding"}),
    # what the toolchains turned out to be
    "the compiler of the kernels": (inputs("cpu", r"g\+\+ 1"), {"library"}),
    "the torch of the binding": (inputs("cpu_torch213", "torch 1"), {"binding"}),
    # sources
    "a kernel": (of("csrc/cpu/norm.cpp"), {"library", "binding"}),
    "the binding's source": (of("csrc/torch/norm.cpp"), {"binding"}),
    "the Python package": (of("flashinfer/norm.py"), {"binding"}),
    "the recipe": (of("recipe/build_library.sh"), {"library", "binding"}),
    # pyproject.toml, a table at a time
    "what builds the binding": (toml('    "ninja",', '    "ninja", "wheel",'), {"binding"}),
    "the project's description": (toml("Attention kernels", "Kernels"), {"binding"}),
    "what setuptools packs": (toml("py.typed", "*.typed"), {"binding"}),
    "the name of the wheel": (toml('wheel-name = "flash', 'wheel-name = "flush'), OF_PACKAGES),
    "the layout of the index": (toml("/torch{torch}", "/{torch}"), OF_PACKAGES),
    "a dependency's name": (toml('pytorch = "torch"', 'pytorch = "torch2"'), OF_PACKAGES),
    "a list of the configuration": (toml("libc10_cuda.so", "libc11.so"), OF_PACKAGES),
    "a linter's setting": (toml("line-length = 100", "line-length = 99"), set()),
    "a comment": (toml("# the recipe's own tests", "# tests"), set()),
    # what the configuration names
    "the hooks": (of("scripts/flashinfer_build/checks/hooks.py"), {"wheel", "verify", "publish"}),
    # packages
    "the kernels": (bytes_of_kernels, {"binding"}),
    "the binding's package": (bytes_of("binding"), OF_PACKAGES),
    "the staged kernels": (bytes_of("staged_library"), OF_PACKAGES),
    # the wheel
    "the platform tag": (setting(platform_tag="auto"), {"wheel"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_input_changes_the_keys_of_the_stages_that_read_it(name: str, site: Site) -> None:
    change, kinds = CHANGES[name]
    before = site.keys()
    change(site)
    after = site.keys()
    assert {kind for kind in before if after[kind] != before[kind]} == kinds


def test_every_kind_of_stage_is_changed_by_something(site: Site) -> None:
    assert set(site.keys()) == set().union(*(kinds for _, kinds in CHANGES.values()))


def test_the_kernels_key_is_the_same_whichever_row_stands_for_their_cuda(site: Site) -> None:
    """They are compiled once per CUDA: a row more or less does not build them anew."""
    pipeline = Pipeline(site.settings)
    keys = set()
    for spec in pipeline.select(["cpu_torch24", "cpu_torch213"]):
        label = pipeline.label(spec.variant)
        [stage] = [
            stage
            for stage in LibraryJob(site.settings, spec, label, pipeline.providers).stages()
            if stage.kind == "library"
        ]
        keys.add(stage.key())
    assert keys == {site.keys()["library"]}
