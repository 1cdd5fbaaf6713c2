"""jobs: what each stage asks of the tools, what it records to have made, what it tells people."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import pytest
import toy_artifacts as toy

from conda_bridge.errors import ArtifactError, ConflictError, TestsFailed
from conda_bridge.publish import index
from conda_bridge.system import atomic
from conda_bridge.system.progress import Progress
from flashinfer_build.label import Label
from flashinfer_build.pipeline import jobs
from flashinfer_build.pipeline.jobs import Job, VariantJob
from flashinfer_build.pipeline.pipeline import Pipeline
from flashinfer_build.pipeline.settings import Settings
from flashinfer_build.pipeline.stages import Log
from flashinfer_build.toolchain import Toolchain

VERSION = {"FLASHINFER_BUILD_VERSION": "0.1.6"}
CHANNELS = ("file:///tools/one", "file:///tools/two")


class Site:
    """A checkout of links, a variant's jobs, and tools that only note what they are asked."""

    def __init__(self, root: Path, folder: Path, patch: pytest.MonkeyPatch, **given: Any) -> None:
        for name in ("csrc", "scripts", "conda_build_config.yaml", "pyproject.toml"):
            (folder / name).symlink_to(root / name)
        given = {"output": folder / "dist", **given}
        given["environ"] = {**VERSION, **given.get("environ", {})}
        self.variant_id = given.pop("variant", "cu130_torch213")
        self.settings = Settings(folder, folder / "cache", **given)
        self.pipeline = Pipeline(self.settings)
        [spec] = self.pipeline.select([self.variant_id])
        self.job = self.pipeline.job(spec)
        self.kernels = self.job.kernels
        self.log_file = folder / "log"
        self.log = Log(self.log_file.open("w"), Progress(0, quiet=True))
        self.requests: list[Any] = []
        patch.setattr(jobs.toolchain, "provide", self._provide)

    def _provide(self, request: Any, providers: Any, *, report: Callable[[str], None]) -> Toolchain:
        self.requests.append(request)
        assert providers == self.pipeline.providers
        report("made with care")
        return Toolchain(
            request.variant,
            "a provider",
            CHANNELS,
            {"gxx": "13", "c_stdlib_version": "2.28"},
            "2.13.0+cu130" if request.torch else "",
            request.importable,
            (),
            ("torch 1", "g++ 1") if request.torch else ("g++ 1",),
            ("g++ 1",),
        )

    def run(self, job: Job, kind: str) -> tuple[list[Path], dict[str, Any]]:
        [stage] = [stage for stage in job.stages() if stage.kind == kind]
        made, facts = stage.run(self.log)
        assert all(path.is_file() for path in made), "recorded outputs are there"
        assert len(set(made)) == len(made)
        return list(made), dict(facts)

    def said(self) -> list[str]:
        return self.log_file.read_text().splitlines()


SiteOf = Callable[..., Site]


@pytest.fixture
def site_of(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteOf:
    def make(**given: Any) -> Site:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Site(root, folder, monkeypatch, **given)

    return make


def small_wheel(folder: Path, label: Label, platform: str = "linux_x86_64") -> Path:
    """A wheel without a library."""
    info = f"flashinfer-{label.wheel_version}.dist-info"
    contents = {
        "flashinfer/__init__.py": b"value = 42\n",
        f"{info}/METADATA": toy.metadata(label, Requires_Dist="", License_File=""),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        + f"Tag: cp38-abi3-{platform}\n".encode(),
    }
    path = toy.write_wheel(folder, label, contents=contents)
    return path.rename(path.with_name(path.name.replace("linux_x86_64", platform)))


# ------------------------------------------------------------ the plan


@pytest.mark.parametrize(
    ("given", "cuda", "variant"),
    [
        ({}, "cu130", "cu130_torch213"),
        ({"glibc": "2.28"}, "cu130-glibc2.28", "cu130_torch213-glibc2.28"),
        ({"variant": "cpu_torch213"}, "cpu", "cpu_torch213"),
    ],
)
def test_stages_have_names_locks_and_needs(
    site_of: SiteOf, given: dict[str, Any], cuda: str, variant: str
) -> None:
    site = site_of(**given)
    output = str(site.settings.output_dir)
    digest = hashlib.sha256(json.dumps({"output": output}).encode()).hexdigest()[:8]
    proofs = ("verify", "try-conda", "try-pip")
    kernels = [
        ("compiler", f"{cuda}/compiler", "compiler for the kernels", f"{cuda}/compiler", (), ()),
        ("library", f"{cuda}/library", "libflashinfer (kernels)", cuda, ("compiler",), ()),
    ]

    def last(job: str, needs: tuple[str, ...], title: str) -> tuple[object, ...]:
        return ("publish", f"{job}/publish-{digest}", title, f"{job}/publish", needs, (job,))

    def proof(job: str, kind: str, title: str, need: str) -> tuple[object, ...]:
        return (kind, f"{job}/{kind}", title, f"{job}/{kind}", (need,), (job,))

    toolchain, binding = f"{variant}/toolchain", f"{variant}/binding"
    expected = {
        cuda: [
            *kernels,
            proof(cuda, "verify", "verify", "library"),
            last(cuda, ("verify",), "channel"),
        ],
        variant: [
            ("toolchain", toolchain, "toolchain", toolchain, (), ()),
            *kernels,
            ("binding", binding, "flashinfer (torch binding)", variant, ("toolchain", "library"))
            + ((cuda,),),
            ("wheel", f"{variant}/wheel", "bridge to the wheel", variant, ("binding",), ()),
            proof(variant, "verify", "verify", "wheel"),
            proof(variant, "try-conda", "install and run: conda", "wheel"),
            proof(variant, "try-pip", "install and run: pip", "wheel"),
            last(variant, proofs, "channel and index"),
        ],
    }
    for job in (site.kernels, site.job):
        assert [
            (stage.kind, stage.name, stage.title, stage.lock, stage.needs, stage.reads)
            for stage in job.stages()
        ] == expected[job.folder]
        # Each publication is recorded for its own folder.
    other = site_of(**given, output=Path("/elsewhere"))
    assert other.job.stages()[-1].name != site.job.stages()[-1].name
    assert other.job.stages()[-1].lock == site.job.stages()[-1].lock


def test_where_a_job_makes_and_publishes_its_files(site_of: SiteOf) -> None:
    site = site_of(glibc="2.28")
    build, dist = site.settings.build_dir, site.settings.output_dir
    channel = build / "packages/cu130-glibc2.28/libflashinfer-0.1.6-cu130_0"
    staging = build / "staging/cu130_torch213-glibc2.28/flashinfer-0.1.6-cu130_torch213_0"
    binding, library = (
        "flashinfer-0.1.6-cu130_torch213_0.conda",
        "libflashinfer-0.1.6-cu130_0.conda",
    )
    wheel = "flashinfer-0.1.6+cu130torch2.13-cp38-abi3-linux_x86_64.whl"
    assert site.kernels.artifacts() == [channel / "linux-64" / library]
    packages = [staging / "channel/linux-64" / name for name in (binding, library)]
    assert site.job.artifacts() == [*packages, staging / "wheels" / wheel]
    published = [dist / "channel/linux-64" / name for name in (binding, library)]
    assert site.kernels.published == published[1:]
    page = dist / "index/cu130/torch2.13/flashinfer/index.html"
    assert site.job.published == [*published, dist / "wheels" / wheel, page]
    assert site.kernels.title == "libflashinfer 0.1.6"
    assert site.job.title == "flashinfer 0.1.6+cu130torch2.13"
    alone = site_of(wheel=False).job
    assert [path.suffix for path in (*alone.artifacts(), *alone.published)] == [".conda"] * 4


def test_keys_wait_for_what_is_not_there_yet(site_of: SiteOf) -> None:
    site = site_of()
    waiting = {"library", "binding", "wheel", "verify", "try-conda", "try-pip", "publish"}
    for job in (site.kernels, site.job):
        for stage in job.stages():
            if stage.kind in waiting:
                assert stage.key() is None, stage.name


# ------------------------------------------------------------ toolchain


@pytest.mark.parametrize("glibc", [None, "2.28"])
def test_a_toolchain_is_asked_for_what_the_row_pins(site_of: SiteOf, glibc: str | None) -> None:
    site = site_of(glibc=glibc)
    spec = site.job.spec
    made, facts = site.run(site.job, "toolchain")
    [asked] = site.requests
    assert (asked.variant, asked.torch, asked.importable) == (spec.variant, True, True)
    assert asked.gxx_below == int(spec.gxx_below)
    assert (asked.gxx, asked.glibc) == (spec.cxx_compiler_version, glibc)
    lists = {"all": ["torch 1", "g++ 1"], "compiler": ["g++ 1"]}
    assert [json.loads(path.read_text()) for path in made] == [lists]
    assert made == [site.settings.build_dir / "inputs" / f"{site.job.folder}.json"]
    keys = "c_stdlib_version=2.28 gxx=13"
    assert facts == {
        "summary": "a provider, torch 2.13.0+cu130",
        "provider": "a provider",
        "channels": " ".join(CHANNELS),
        "variant_keys": keys,
    }
    told = ["made with care", "torch 1", "g++ 1", f"channel {' '.join(CHANNELS)}"]
    assert site.said() == [*told, f"variant keys {keys}"]
    site.run(site.job, "toolchain")
    assert len(site.requests) == 1, "it is made once"
    # The kernels know no torch.
    made, facts = site.run(site.kernels, "compiler")
    assert (site.requests[-1].torch, site.requests[-1].importable) == (False, False)
    assert made == [site.settings.build_dir / "inputs" / f"{site.kernels.folder}.json"]
    assert facts["summary"] == "a provider"


# ------------------------------------------------------------ packages


@dataclass
class Asked:
    """What the builder was called with."""

    arguments: Sequence[Any]
    options: dict[str, Any]


def builder(site: Site, patch: pytest.MonkeyPatch, label: Label) -> list[Asked]:
    """In place of the builder: packages of a few bytes."""
    calls: list[Asked] = []

    def build(*arguments: Any, **options: Any) -> Path:
        calls.append(Asked(arguments, options))
        output, into = arguments[2], arguments[4]
        write = factories.write_binding if output == "flashinfer" else factories.write_library
        path = write(into / "linux-64", label)
        index.update_channel(into)
        options["report"]("built")
        return path

    patch.setattr(jobs.builder, "build", build)
    return calls


@pytest.mark.parametrize("limit", [{}, {"MAX_JOBS": "3"}, {"MAX_JOBS": ""}])
def test_the_kernels_are_built_into_a_channel_of_their_own(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch, limit: dict[str, str]
) -> None:
    site = site_of(environ=limit, build_number=2, commit="1a2b3c4", arch_list="9.0a")
    job = site.kernels
    calls = builder(site, monkeypatch, job.label)
    stale = job.channel / "linux-64" / "libflashinfer-0.1.5-cu130_0.conda"
    atomic.write_text(stale, "of an earlier one")
    made, facts = site.run(job, "library")
    assert not stale.exists()
    assert made[0] == job.library
    everything = {path for path in job.channel.rglob("*") if path.is_file()}
    assert {*made} == {path for path in everything if not path.name.startswith(".")}
    names = {path.relative_to(job.channel).as_posix() for path in made[1:]}
    assert names > {
        f"{subdir}/{form}.json{ending}"
        for subdir in ("noarch", "linux-64")
        for form in ("repodata", "current_repodata", "run_exports")
        for ending in ("", ".zst")
    }
    assert facts["archs"] == "9.0a"
    size = job.library.stat().st_size / 1e6
    assert facts["summary"] == f"{job.library.name}  {size:.2f} MB"
    [asked] = calls
    recipe, spec, output, channels, into = asked.arguments
    assert recipe == site.settings.root / "recipe/recipe.yaml"
    assert (output, channels, into) == ("libflashinfer", list(CHANNELS), job.channel)
    assert spec.cuda_arch_list == "9.0a"
    wanted = {"MAX_JOBS": "3"} if limit.get("MAX_JOBS") else {}
    assert asked.options["environ"] == {
        "FLASHINFER_BUILD_VERSION": "0.1.6",
        "FLASHINFER_BUILD_NUMBER": "2",
        "FLASHINFER_BUILD_COMMIT": "1a2b3c4",
        **wanted,
    }
    assert asked.options["variant_keys"] == {"gxx": "13", "c_stdlib_version": "2.28"}
    assert asked.options["work"] == site.settings.build_dir / "work"
    assert "built" in site.said()


def test_the_binding_is_built_over_the_kernels_and_staged_beside_them(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(variant="cpu_torch213", arch_list="9.0a")  # a CPU has no such list
    job = site.job
    calls = builder(site, monkeypatch, job.label)
    site.run(site.kernels, "library")
    stale = job.staging / "wheels" / "half.whl"
    atomic.write_text(stale, "of an earlier one")
    made, facts = site.run(job, "binding")
    assert not stale.exists()
    assert made[:2] == [job.binding, job.staged_library]
    assert job.staged_library.read_bytes() == site.kernels.library.read_bytes()
    repodata = job.staging / "channel/linux-64/repodata.json"
    assert {repodata, repodata.with_suffix(".json.zst")} < set(made)
    assert set(json.loads(repodata.read_text())["packages.conda"]) == {
        path.name for path in made[:2]
    }
    assert re.fullmatch(r"flashinfer-\S+\.conda  \d\.\d\d MB", facts["summary"])
    asked = calls[-1]
    _, spec, output, channels, into = asked.arguments
    assert channels == [site.kernels.channel.resolve().as_uri(), *CHANNELS]
    assert (output, into) == ("flashinfer", job.staging / "channel")
    assert "9.0a" not in spec.cuda_arch_list
    assert asked.options["environ"]["FLASHINFER_BUILD_COMMIT"] == ""


# ------------------------------------------------------------ wheel


@pytest.mark.parametrize("platform", ["linux_x86_64", "manylinux_2_31_x86_64"])
def test_the_wheel_lies_alone_with_its_pages(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    tag = "auto" if platform.startswith("many") else platform
    site = site_of(platform_tag=tag)
    job, asked = site.job, []
    folder = job.staging / "wheels"

    def bridge(package: Path, into: Path, **options: Any) -> SimpleNamespace:
        asked.append((package, into, options))
        return SimpleNamespace(path=small_wheel(into, job.label, platform))

    monkeypatch.setattr(jobs.convert, "bridge", bridge)
    older = small_wheel(folder, job.label, "manylinux_2_17_x86_64")
    index.update_wheel_index(job.staging, project=job.project)
    made, facts = site.run(job, "wheel")
    wheel = folder / job.label.wheel_file_for("cp38", "abi3", platform)
    assert asked == [
        (job.binding, folder, {"project": job.project, "platform_tag": tag, "overwrite": True})
    ]
    assert not older.exists(), "of another platform tag"
    assert job.wheel == wheel
    pages = job.staging / "index"
    assert made == [
        *(wheel, wheel.with_name(f"{wheel.name}.metadata")),
        *sorted(path for path in pages.rglob("*") if path.is_file()),
    ]
    listed = json.loads((pages / job.label.index_dir / "flashinfer/index.json").read_text())
    assert [item["filename"] for item in listed["files"]] == [wheel.name]
    assert facts["summary"].startswith(f"{wheel.name}  0.00 MB")
    assert str(wheel) in site.said()


def test_a_wheel_that_is_not_there_is_an_error(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of()
    nothing = SimpleNamespace(path=site.job.staging / "wheels" / "lost.whl")
    monkeypatch.setattr(jobs.convert, "bridge", lambda *_args, **_options: nothing)
    with pytest.raises(ArtifactError, match=r"lost\.whl is not there") as caught:
        site.run(site.job, "wheel")
    assert caught.value.where == str(site.job.staging / "wheels")


# ------------------------------------------------------------ proof


@pytest.mark.parametrize(
    ("given", "archs"),
    [({"arch_list": "9.0a"}, "9.0a"), ({"variant": "cpu_torch213", "arch_list": "9.0a"}, None)],
)
def test_verify_looks_at_every_artifact_for_the_architectures(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], archs: str | None
) -> None:
    site = site_of(**given)
    asked: list[Any] = []
    report = SimpleNamespace(errors=[], findings=[], passed=18, archs="sm_90a")

    def verify(artifacts: list[Path], **options: Any) -> SimpleNamespace:
        asked.append((artifacts, options))
        return report

    monkeypatch.setattr(jobs.gate, "verify", verify)
    monkeypatch.setattr(jobs.gate, "as_lines", lambda _report: ["one", "two"])
    for job in (site.kernels, site.job):
        made, facts = site.run(job, "verify")
        assert (made, facts) == ([], {"summary": "18 checks", "archs": "sm_90a"})
        assert asked.pop() == (job.artifacts(), {"project": job.project, "arch_list": archs})
    assert site.said() == ["one", "two"] * 2
    report.errors, report.findings = ["cannot be read"], [f"finding {n}" for n in range(9)]
    with pytest.raises(
        TestsFailed, match=r"^10 findings:\n  cannot be read\n  finding 0\n"
    ) as caught:
        site.run(site.job, "verify")
    assert str(caught.value).endswith("\n  finding 6"), "the first eight; the log has them all"


@pytest.mark.parametrize(("kind", "function"), [("try-conda", "in_conda"), ("try-pip", "in_venv")])
def test_each_client_tries_what_is_staged(
    site_of: SiteOf, monkeypatch: pytest.MonkeyPatch, kind: str, function: str
) -> None:
    site = site_of()
    asked: list[Any] = []

    def tried(*arguments: Any, report: Callable[[str], None], **options: Any) -> SimpleNamespace:
        asked.append((arguments, options))
        report("it runs")
        return SimpleNamespace(summary="all right", devices=("cpu", "H200"))

    monkeypatch.setattr(jobs.install, function, tried)
    made, facts = site.run(site.job, kind)
    assert (made, facts) == ([], {"summary": "all right", "devices": ["cpu", "H200"]})
    [((place, tools, label), options)] = asked
    staging = site.job.staging
    assert place == (staging / "channel" if kind == "try-conda" else staging)
    assert (tools.provider, label) == ("a provider", site.job.label)
    assert options == {"work": site.settings.build_dir / "work"}
    assert site.said() == ["made with care", "it runs"]


# ------------------------------------------------------------ publication


def test_what_is_published_is_recorded_and_stays(site_of: SiteOf) -> None:
    site = site_of()
    job, kernels = site.job, site.kernels

    def make(license: str = "Apache-2.0") -> None:
        folder = job.binding.parent
        factories.write_pair(folder, job.label, index={"license": license})
        atomic.copy(job.staged_library, kernels.library)
        small_wheel(job.staging / "wheels", job.label)

    make()
    made, facts = site.run(kernels, "publish")
    assert (made, facts) == (kernels.published, {"summary": "dist"})
    made, facts = site.run(job, "publish")
    wheel, page = job.published[2:]
    metadata = wheel.with_name(f"{wheel.name}.metadata")
    assert made == [*job.published, metadata, page.with_suffix(".json")]
    assert facts == {"summary": "dist"}
    assert f"publish {wheel.name}" in site.said()
    [stage] = [stage for stage in job.stages() if stage.kind == "publish"]
    assert stage.sound()
    page.unlink()
    assert not stage.sound()
    site.run(job, "publish")
    assert stage.sound()
    # Other bytes only where that was asked for.
    make("MIT")
    with pytest.raises(ConflictError, match="published with other bytes"):
        site.run(job, "publish")
    replacing = VariantJob(
        Settings(**{**vars(site.settings), "replace": True}),
        *(job.spec, job.label, site.pipeline.providers, kernels),
    )
    site.run(replacing, "publish")
    assert job.published[0].read_bytes() == job.binding.read_bytes()
