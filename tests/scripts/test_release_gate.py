"""The gate of a release: a whole one passes, and each thing that it must not be is refused."""

# ruff: noqa: E501  (tables: a case a line)

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import factories
import pytest
import toy_artifacts as toy
import wheel_factory

from conda_bridge.errors import ConfigError
from conda_bridge.formats.wheel_reader import file_sha256
from conda_bridge.project import Project
from conda_bridge.publish import release_checks
from conda_bridge.publish.release_checks import Line, named
from flashinfer_build.label import Label, Variant
from flashinfer_build.matrix import promises, release_gate
from flashinfer_build.matrix.promises import Promise
from flashinfer_build.matrix.release_gate import Gate
from flashinfer_build.pipeline.pipeline import Pipeline, Settings

OURS = factories.FLASHINFER
CPU = factories.label_of("cpu_torch213")
CUDA = factories.label_of("cu130_torch213")
PROMISES = [Promise(CPU.variant, "None"), Promise(CUDA.variant, "8.0+PTX;9.0a")]
NIGHTLY = {"public_version": "0.1.7.dev20261130", "commit": "1a2b3c4"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole release of two variants."""
    folder = tmp_path_factory.mktemp("release")
    for label in (CPU, CUDA):
        toy.write_release(folder, label)
    return folder


@pytest.fixture
def dist(release: Path, tmp_path: Path) -> Path:
    """One of one's own."""
    return Path(shutil.copytree(release, tmp_path / "dist"))


def gate(folder: Path, event: str = "release", **options: Any) -> Gate:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".conda", ".whl"))
    return release_gate.check(paths, PROMISES, OURS, event, **{"published": {}, **options})


def refused(made: Gate) -> dict[str, Line]:
    """The refusals by check; each says what it found, of what, and what to do."""
    for line in made.refused:
        assert line.about, line
        assert line.what, line
        assert line.fix, line
    return {line.check: line for line in made.refused}


def test_a_whole_release_passes(release: Path) -> None:
    made = gate(release)
    assert made.refused == []
    assert (made.exit_code, made.version) == (0, "0.1.6")
    checks = {line.check for line in made.lines}
    assert checks >= {
        "variants",
        "labels",
        "order",
        "size",
        "abi3",
        "manylinux",
        "licences",
        "published",
    }
    about = [line.about for line in made.lines if line.check == "variants"]
    assert about == ["cpu_torch213", "cu130_torch213"]


def _without(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        [path] = folder.rglob(pattern)
        path.unlink()

    return change


def _instead(
    write: Callable[..., Path], place: str, label: Label, **what: Any
) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write(folder / place, label, **what)

    return change


def _cut(folder: Path) -> None:
    [path] = folder.glob("wheels/*cpu*.whl")
    path.write_bytes(path.read_bytes()[:1000])


def _copied(folder: Path) -> None:
    toy.write_release(folder, factories.label_of("cpu_torch213", build_number=1))


_CHANNEL = "channel/linux-64"
_BAD_BINDING = toy.binding(python=("PyModule_Create2", "PyUnicode_AsUTF8AndSize"))  # of 3.10
_FOREIGN = factories.build_info(CPU, VARIANT="cpu_torch212")


@pytest.mark.parametrize(
    ("change", "check", "about", "words"),
    [
        (_without("flashinfer-0.1.6-cpu_torch213_0.conda"), "variants", "cpu_torch213", "missing: flashinfer-0.1.6-cpu_torch213_0.conda"),
        (_without("libflashinfer-0.1.6-cu130_0.conda"), "variants", "cu130_torch213", "missing: libflashinfer-0.1.6-cu130_0.conda"),
        (_without("*cu130torch2.13*.whl"), "variants", "cu130_torch213", "missing: flashinfer-0.1.6+cu130torch2.13"),
        (_instead(toy.write_wheel, "wheels", CPU, init=b"other\n"), "variants", "cpu_torch213", "hold different files"),
        (_instead(toy.write_wheel, "wheels", CPU, init=b"other\n"), "payload", ".whl", "as in flashinfer-0.1.6"),
        (_instead(toy.write_wheel, "wheels", CPU, binding=_BAD_BINDING), "abi3", ".whl", "PyUnicode_AsUTF8AndSize"),
        (_instead(toy.write_wheel, "wheels", CPU, name="flashinfer-0.1.6+cputorch2.13-cp38-abi3-manylinux_2_5_x86_64.whl", wheel=b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp38-abi3-manylinux_2_5_x86_64\n", binding=toy.binding(more="extern int getrandom(void*, unsigned long, unsigned); __attribute__((visibility(\"default\"))) int ask(void* p) { return getrandom(p, 1, 0); }")), "manylinux", "manylinux_2_5", "GLIBC"),
        (_instead(toy.write_wheel, "wheels", CPU, licence=None), "licences", ".whl", "is not in the wheel"),
        (_instead(toy.write_conda, _CHANNEL, CPU, info={"info/licenses/LICENSE": b""}), "licences", ".conda", "no licence file"),
        (_instead(toy.write_conda, _CHANNEL, CPU, index={"license": ""}), "licences", ".conda", "has no licence"),
        (_instead(toy.write_wheel, "wheels", CPU, build_info=_FOREIGN), "build-info", ".whl", "cpu_torch212"),
        (_copied, "labels", "_1.conda", "0.1.6 build 1"),
        (_cut, "readable", ".whl", ""),
    ],
)  # fmt: skip
def test_what_is_refused(
    dist: Path, change: Callable[[Path], None], check: str, about: str, words: str
) -> None:
    change(dist)
    made = gate(dist)
    assert made.exit_code == (2 if check == "readable" else 1)
    found = [line for line in made.refused if line.check == check]
    refused(made)
    assert any(about in line.about and words in line.what for line in found), made.refused


def test_what_is_missing_is_said_with_the_command_that_builds_it(dist: Path, root: Path) -> None:
    _without("*cu130torch2.13*.whl")(dist)
    fix = refused(gate(dist))["variants"].fix
    assert fix == "python scripts/build.py --variant cu130_torch213"
    done = subprocess.run(
        [sys.executable, str(root / fix.split()[1]), *fix.split()[2:], "--dry-run"],
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_gpu_code_is_what_the_matrix_says(release: Path) -> None:
    paths = sorted(release.rglob("*.conda")) + sorted(release.rglob("*.whl"))
    asked = [PROMISES[0], Promise(CUDA.variant, "8.0;9.0a")]
    made = release_gate.check(paths, asked, OURS, "release", published={})
    line = refused(made)["variants"]
    assert line.about == "cu130_torch213"
    assert line.what == "GPU code for compute_80 sm_80 sm_90a, and the matrix says sm_80 sm_90a"


def test_a_variant_that_was_not_verified_is_not_there(release: Path) -> None:
    from conda_bridge.verify import gate as verifier

    names = [path.name for path in release.rglob("*") if path.is_file()]
    everything = verifier.verify([release], project=OURS)
    for left_out in everything.artifacts:
        kept = tuple(item for item in everything.artifacts if item is not left_out)
        lines = promises.check_promises(PROMISES, names, verifier.Report(kept), version="0.1.6")
        wrong = [line for line in lines if not line.passed]
        assert wrong, left_out
        assert all("not verified" in line.what for line in wrong)


def test_a_file_over_the_limit(release: Path) -> None:
    line = refused(gate(release, limit=3000))["size"]
    assert "over 2.9 KiB" in line.what
    assert "--max-size" in line.fix
    largest = max(path.stat().st_size for path in release.rglob("*.*"))
    assert gate(release, limit=largest).exit_code == 0
    assert gate(release, limit=largest - 1).exit_code == 1


def test_a_published_name_keeps_its_bytes(release: Path) -> None:
    [wheel] = release.glob("wheels/*cpu*.whl")
    assert gate(release, published={wheel.name: {file_sha256(wheel)}}).exit_code == 0
    line = refused(gate(release, published={wheel.name: {"0" * 64}}))["published"]
    assert line.about == wheel.name
    assert "build number" in line.fix


def test_an_event_has_its_own_labels(dist: Path, tmp_path: Path) -> None:
    line = refused(gate(dist, "nightly"))["labels"]
    assert "no day and commit" in line.what
    nightly = tmp_path / "nightly"
    for label in (CPU, CUDA):
        toy.write_release(nightly, factories.label_of(label.variant.id, **NIGHTLY))
    assert gate(nightly, "nightly").refused == []
    assert "is a nightly" in refused(gate(nightly, "release"))["labels"].what
    _without("*cu130torch2.13*.whl")(nightly)
    fix = refused(gate(nightly, "nightly"))["variants"].fix
    assert fix.endswith("--variant cu130_torch213 --nightly 20261130 --commit 1a2b3c4")


# ---------------------------------------------------------------- order


def order(new: Label, *others: Label) -> list[str]:
    """What is refused of the files of a label beside those of others."""

    def of(label: Label) -> list[release_checks.Named]:
        files = (label.conda_file, label.lib_conda_file, label.wheel_file)
        return [named(file, OURS) for file in files]

    lines = release_checks.check_order(of(new), [item for label in others for item in of(label)])
    assert all(line.fix for line in lines if not line.passed)
    return [line.what for line in lines if not line.passed]


def _label(version: str, commit: str | None = None, variant: str = "cu130_torch213") -> Label:
    return factories.label_of(variant, public_version=version, commit=commit)


@pytest.mark.parametrize(
    ("new", "other", "words"),
    [
        (_label("0.1.7.dev20261130", "1a2b3c4"), _label("0.1.6"), ""),
        (_label("0.1.7.dev20261130", "1a2b3c4"), _label("0.1.7.dev20261129", "fffffff"), ""),
        (_label("0.1.7.dev20261130", "1a2b3c4"), _label("0.1.7.dev20261130", "1a2b3c4"), ""),
        (_label("0.1.7.dev20261130", "1a2b3c4"), _label("0.1.6.post1"), ""),
        (_label("0.1.6.dev20261130", "1a2b3c4"), _label("0.1.6"), "no upgrade takes it"),
        (_label("0.1.6.dev20261130", "1a2b3c4"), _label("0.1.6rc1"), "no upgrade takes it"),
        (_label("0.1.7.dev20261129", "1a2b3c4"), _label("0.1.7.dev20261130", "fffffff"), "no upgrade takes it"),
        (_label("0.1.7.dev20261130", "1a2b3c4"), _label("0.1.7.dev20261130", "fffffff"), "another commit"),
        # Another variant is another thing.
        (_label("0.1.6.dev20261130", "1a2b3c4"), _label("0.1.6", variant="cpu_torch214"), ""),
        # A release of an older line, and one after its nightlies.
        (_label("0.1.6"), _label("0.2.0"), ""),
        (_label("0.1.7"), _label("0.1.7.dev20261130", "1a2b3c4"), ""),
        (_label("0.1.7rc1"), _label("0.1.7.dev20261130", "1a2b3c4"), ""),
    ],
)  # fmt: skip
def test_a_nightly_is_what_an_upgrade_takes(new: Label, other: Label, words: str) -> None:
    found = order(new, other)
    assert bool(found) == bool(words)
    assert all(words in what for what in found)


def test_pip_and_conda_agree_on_what_is_newer() -> None:
    """A pre-release that conda reads as older than the development version before it."""
    toy_project = Project()
    new = named("toy-0.1.7rc1-0.conda", toy_project)
    old = named("toy-0.1.7.dev20261130-0.conda", toy_project)
    [line] = release_checks.check_order([new], [old])
    assert not line.passed
    assert "above" in line.what and "below" in line.what
    assert "0.1.7.rc1" in line.fix
    [line] = release_checks.check_order([named("toy-0.1.7.rc1-0.conda", toy_project)], [old])
    assert line.passed


# ---------------------------------------------------------------- anybody's


def test_the_licence_of_anybodys_wheel(tmp_path: Path) -> None:
    path, _ = wheel_factory.make_wheel(tmp_path, "toy")
    [line] = release_checks.check_licences([path])
    assert (line.passed, line.what) == (False, "has no licence and no licence file")
    text = "Metadata-Version: 2.4\nName: other\nVersion: 1.0\nLicense-Expression: MIT\nLicense-File: COPYING\n"
    info = "other-1.0.dist-info"
    files = {f"{info}/METADATA": text, f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n"}
    for there, passed in (
        (f"{info}/licenses/COPYING", True),
        (f"{info}/COPYING", True),
        ("COPYING", False),
    ):
        path = _plain_wheel(tmp_path, {**files, there: "do what you like"})
        [line] = release_checks.check_licences([path])
        assert line.passed == passed, there


def _plain_wheel(folder: Path, files: Mapping[str, str]) -> Path:
    import zipfile

    path = folder / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, "other-1.0.dist-info/RECORD": ""}.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "2 TiBs", "nan", "inf"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        release_checks.byte_count(text)


# ---------------------------------------------------------------- the program


@pytest.fixture
def run(root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    environ = {**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"}
    return functools.partial(
        lambda *words, **more: subprocess.run(
            [sys.executable, str(root / "scripts" / "release.py"), *map(str, words)],
            capture_output=True,
            text=True,
            env={**environ, **more},
        )
    )


def test_the_promises_of_an_event_are_the_jobs_of_it(root: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(Settings(root, tmp_path, environ={}))
    every = promises.promised(pipeline, "release")
    newest = promises.promised(pipeline, "pull-request")
    assert {item.variant.id for item in newest} < {item.variant.id for item in every}
    assert Promise(Variant.parse("cu130_torch213"), "8.0+PTX;9.0a") in every


def test_the_program(run: Callable[..., Any], dist: Path, root: Path) -> None:
    done = run("check", dist, "--event", "release", "--published", dist / "nowhere")
    assert done.returncode == 1, done.stderr
    assert "refused  variants" in done.stdout
    assert "python scripts/build.py --variant" in done.stdout
    assert "must not be published" in done.stdout
    done = run("check", dist, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"]) == (1, 1)
    assert {line["check"] for line in document["lines"] if not line["passed"]} == {"variants"}
    assert all(line["fix"] for line in document["lines"] if not line["passed"])
    tag = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v9.9.9"}
    lines = json.loads(run("check", dist, "--json", **tag).stdout)["lines"]
    assert [line["about"] for line in lines if "the tag is v9.9.9" in line["what"]] == ["tag"]
    lines = json.loads(run("check", dist, "--json", FLASHINFER_BUILD_VERSION="0.1.5").stdout)[
        "lines"
    ]
    assert any("version.txt says 0.1.5" in line["what"] for line in lines)


def test_the_program_says_what_it_cannot_use(
    run: Callable[..., Any], dist: Path, tmp_path: Path
) -> None:
    for words in (
        ["check", tmp_path / "none"],
        ["check", dist, "--max-size", "big"],
        ["check", dist, "--published", "https://example.org"],
    ):
        done = run(*words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ")
