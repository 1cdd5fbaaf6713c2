"""The bridge: the wheel has the conda package's payload, and wrong packages make no wheel."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import toy_artifacts as toy
from factories import (
    BUILD_INFO,
    FLASHINFER,
    LICENSE,
    MODULE,
    README,
    bridge,
    build_info,
    label_of,
    said_in_full,
    source_metadata,
    write_binding,
    write_library,
    write_pair,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installer.sources import WheelFile
from packaging.metadata import Metadata

from conda_bridge.bridge.convert import wheel_path
from conda_bridge.bridge.dependencies import MatchSpec, pip_requirement, pip_specifier
from conda_bridge.errors import ArtifactError, BridgeError, ConflictError, LabelError, LabelMismatch
from conda_bridge.formats import conda_package
from flashinfer_build.checks.build_info import parse as read_build_info
from flashinfer_build.checks.torch_abi import pypi_has_new as pypi_cxx11_abi
from flashinfer_build.label import Label

WHEEL = "flashinfer-0.1.6+cputorch2.13-cp38-abi3-linux_x86_64.whl"
DIST_INFO = "site-packages/flashinfer-0.1.6+cputorch2.13.dist-info"
relaxed = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def digests(path: Path) -> dict[str, str]:
    """sha256 of each file of the payload of a conda package, by its path in the wheel."""
    package = conda_package.read(path)
    found = {}
    for member in package.payload():
        target = wheel_path(package, member.path, FLASHINFER)
        if target:
            found[target] = hashlib.sha256(member.read()).hexdigest()
    return found


def wheel_digests(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if ".dist-info/" not in name
        }


def refused(package: Path, output: Path, kind: type[BridgeError] = ArtifactError) -> str:
    """The message with which `package` is refused; nothing may be left behind."""
    for dry_run in (True, False):
        with pytest.raises(kind) as caught:
            bridge(package, output, dry_run=dry_run)
        assert not output.exists() or list(output.iterdir()) == []
    return said_in_full(caught.value, package)


# ------------------------------------------------------------ what comes out


@pytest.mark.parametrize(
    ("label", "file"),
    [
        (label_of(), WHEEL),
        (
            label_of("cu130_torch213"),
            "flashinfer-0.1.6+cu130torch2.13-cp38-abi3-linux_x86_64.whl",
        ),
        (
            label_of("cu124_torch24", build_number=2),
            "flashinfer-0.1.6+cu124torch2.4-2-cp38-abi3-linux_x86_64.whl",
        ),
        (
            label_of("cpu_torch210", public_version="0.1.7rc1"),
            "flashinfer-0.1.7rc1+cputorch2.10-cp38-abi3-linux_x86_64.whl",
        ),
        (
            label_of(public_version="0.1.6.dev20261122", commit="1a2b3c4"),
            "flashinfer-0.1.6.dev20261122+cputorch2.13.g1a2b3c4-cp38-abi3-linux_x86_64.whl",
        ),
    ],
    ids=str,
)
def test_wheel_has_the_name_and_the_payload_of_the_package(
    tmp_path: Path, label: Label, file: str
) -> None:
    package = write_pair(tmp_path, label)
    made = bridge(package, tmp_path / "wheels")
    assert made.path.name == file == label.wheel_file
    assert made.outcome == "written"
    assert [path.name for path in made.path.parent.iterdir()] == [file]
    expected = digests(package) | digests(tmp_path / label.lib_conda_file)
    assert wheel_digests(made.path) == expected
    assert sorted(expected) == list(made.payload)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert made.size == made.path.stat().st_size
    with WheelFile.open(made.path) as source:
        source.validate_record()


def test_metadata_is_that_of_the_package(tmp_path: Path) -> None:
    made = bridge(write_pair(tmp_path, label_of("cu130_torch213")), tmp_path)
    info = "flashinfer-0.1.6+cu130torch2.13.dist-info"
    with zipfile.ZipFile(made.path) as archive:
        text = archive.read(f"{info}/METADATA")
        assert archive.read(f"{info}/licenses/LICENSE") == LICENSE
        names = {name for name in archive.namelist() if name.startswith(info)}
        module = archive.getinfo("flashinfer/_C.abi3.so")
        source = archive.getinfo("flashinfer/__init__.py")
    assert names == {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")
    }
    assert (module.external_attr >> 16, source.external_attr >> 16) == (0o100755, 0o100644)
    found = Metadata.from_email(text, validate=True)
    assert str(found.version) == "0.1.6+cu130torch2.13"
    assert [str(item) for item in found.requires_dist or []] == ["torch==2.13.*"]
    assert str(found.requires_python) == ">=3.8"
    assert found.license_expression == "Apache-2.0"
    assert found.license_files == ["LICENSE"]
    assert found.description == README.decode()
    assert found.description_content_type == "text/markdown"
    assert found.project_urls == {
        "Homepage": "https://example.org/home",
        "Repository": "https://example.org/code",
    }


def test_description_comes_from_about_where_the_source_has_none(tmp_path: Path) -> None:
    bare = source_metadata(label_of(), Summary="").removesuffix(README)
    made = bridge(write_pair(tmp_path, files={f"{DIST_INFO}/METADATA": bare}), tmp_path)
    with zipfile.ZipFile(made.path) as archive:
        text = archive.read("flashinfer-0.1.6+cputorch2.13.dist-info/METADATA").decode()
    assert "Summary: from about.json\n" in text
    assert text.endswith("\n\nlong, from about.json\n")


def test_pip_installs_the_wheel(tmp_path: Path) -> None:
    made = bridge(write_pair(tmp_path), tmp_path / "wheels")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--no-compile", str(made.path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [site] = environment.glob("lib/python*/site-packages")
    for name, digest in wheel_digests(made.path).items():
        assert hashlib.sha256((site / name).read_bytes()).hexdigest() == digest
    assert os.access(site / "flashinfer/_C.abi3.so", os.X_OK)
    listed = subprocess.run([*pip, "show", "-f", "flashinfer"], capture_output=True, text=True)
    assert "Version: 0.1.6+cputorch2.13" in listed.stdout
    assert "flashinfer/lib/libflashinfer.so" in listed.stdout
    removed = subprocess.run(
        [*pip, "uninstall", "-y", "flashinfer"], capture_output=True, text=True
    )
    assert removed.returncode == 0, removed.stderr
    assert not (site / "flashinfer").exists()


@given(
    st.dictionaries(
        st.text("abc_é", min_size=1, max_size=8).map(
            lambda n: f"site-packages/flashinfer/x_{n}.py"
        ),
        st.binary(max_size=4000),
        max_size=6,
    )
)
@relaxed
def test_any_payload_arrives_unchanged(tmp_path: Path, payload: dict[str, bytes]) -> None:
    package = write_pair(tmp_path, files=payload)
    made = bridge(package, tmp_path / "out", overwrite=True)
    found = wheel_digests(made.path)
    for path, data in payload.items():
        assert found[path.removeprefix("site-packages/")] == hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------ the same bytes


def test_bytes_do_not_depend_on_threads_umask_times_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = {"lib/libflashinfer.so": random.Random(1).randbytes(5 << 20)}
    made = set()
    for number, threads in enumerate((1, 2, 5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_library(folder, label_of(), files=library)
        package = write_binding(folder, label_of())
        os.utime(package, (10**9 + number, 10**9 + number))
        monkeypatch.chdir(folder)
        monkeypatch.setenv("TZ", f"UTC+{number}")
        mask = os.umask((0o022, 0o077, 0o002)[number])
        try:
            result = bridge(Path(package.name), Path("out"), threads=threads)
        finally:
            os.umask(mask)
        assert result.path.stat().st_mode & 0o777 == 0o644
        made.add(result.path.read_bytes())
    assert len(made) == 1


def test_source_date_epoch_is_the_time_of_every_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = bridge(write_pair(tmp_path), tmp_path)
    with zipfile.ZipFile(made.path) as archive:
        assert {item.date_time for item in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    package = write_pair(tmp_path)
    first = bridge(package, tmp_path / "out")
    before = first.path.stat()
    second = bridge(package, tmp_path / "out")
    assert second.outcome == "unchanged"
    assert (second.sha256, second.size) == (first.sha256, first.size)
    after = second.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_bytes_are_a_conflict_unless_overwritten(tmp_path: Path) -> None:
    package = write_pair(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    (output / WHEEL).write_bytes(b"published")
    with pytest.raises(ConflictError, match="--overwrite"):
        bridge(package, output)
    assert [path.name for path in output.iterdir()] == [WHEEL]
    assert (output / WHEEL).read_bytes() == b"published"
    assert bridge(package, output, overwrite=True).outcome == "written"
    assert zipfile.is_zipfile(output / WHEEL)


def test_dry_run_checks_and_writes_nothing(tmp_path: Path) -> None:
    made = bridge(write_pair(tmp_path), tmp_path / "out", dry_run=True)
    assert made.outcome == "checked"
    assert made.path == tmp_path / "out" / WHEEL
    assert "flashinfer/lib/libflashinfer.so" in made.payload
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ name = metadata = content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("VERSION", "0.1.6+cu130torch2.13"),
        ("VERSION", "0.1.6"),
        ("PUBLIC_VERSION", "0.1.7"),
        ("VARIANT", "cu130_torch213"),
        ("TORCH", "2.12"),
        ("CUDA", "13.0.88"),
        ("COMMIT", "1a2b3c4"),
        ("BUILD_NUMBER", 1),
        ("CXX11_ABI", 1),
        ("CXX11_ABI", None),
    ],
)
def test_build_info_of_another_build_is_refused(tmp_path: Path, key: str, value: object) -> None:
    package = write_pair(tmp_path, files={BUILD_INFO: build_info(label_of(), **{key: value})})
    message = refused(package, tmp_path / "out")
    assert key in message
    assert repr(value) in message


def test_cuda_of_another_release_is_refused(tmp_path: Path) -> None:
    label = label_of("cu130_torch213")
    package = write_pair(tmp_path, label, files={BUILD_INFO: build_info(label, CUDA="12.9.86")})
    assert "CUDA is '12.9.86'" in refused(package, tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    [
        b"import os\n",
        b"VERSION = open('/etc/passwd').read()\n",
        b"VERSION =",
        b"A.b = 1\n",
        b"A = B = 1\n",
        b"VERSION = " + b"(" * 5000,
        b"\0",
    ],
)
def test_build_info_is_never_executed(tmp_path: Path, text: bytes) -> None:
    package = write_pair(tmp_path, files={BUILD_INFO: text})
    assert "_build_info.py: cannot be read" in refused(package, tmp_path / "out")


def test_build_info_values() -> None:
    text = b'"""Doc."""\n\nA = "x"\nB = True\nC = 3\n'
    assert read_build_info(text) == {"A": "x", "B": True, "C": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"Name": "other"},
        {"Version": "0.1.6"},
        {"Version": "0.1.6+cputorch2.12"},
        {"Requires-Python": ">=3.9"},
        {"Requires-Dist": "torch==2.12.*"},
        {"Requires-Dist": ""},
    ],
    ids=str,
)
def test_source_metadata_of_another_build_is_refused(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    text = source_metadata(label_of(), **changes)
    package = write_pair(tmp_path, files={f"{DIST_INFO}/METADATA": text})
    [key] = changes
    assert f"METADATA: {key}" in refused(package, tmp_path / "out")


@pytest.mark.parametrize("missing", [BUILD_INFO, f"{DIST_INFO}/METADATA"])
def test_missing_description_of_the_build_is_refused(tmp_path: Path, missing: str) -> None:
    assert "missing" in refused(write_pair(tmp_path, files={missing: None}), tmp_path / "out")


def test_metadata_of_a_second_version_is_refused(tmp_path: Path) -> None:
    other = "site-packages/flashinfer-0.1.5+cputorch2.13.dist-info/METADATA"
    package = write_pair(tmp_path, files={other: b"Name: flashinfer\nVersion: 0.1.5\n"})
    assert "metadata of another version" in refused(package, tmp_path / "out")


# ------------------------------------------------------------ C++ ABI


@pytest.mark.parametrize(
    ("torch", "new"), [((2, 4), False), ((2, 6), False), ((2, 7), True), ((2, 13), True)]
)
def test_pypi_torch_has_the_new_abi_from_2_7(torch: tuple[int, int], new: bool) -> None:
    assert pypi_cxx11_abi(torch) is new


@pytest.mark.parametrize(
    ("variant", "abi", "fits"),
    [
        ("cu124_torch24", True, "conda-forge's pytorch 2.4"),
        ("cpu_torch26", True, "torch 2.7 or newer"),
        ("cu128_torch27", False, "PyPI's torch up to 2.6"),
    ],
)
def test_binding_of_the_other_cxx_abi_is_refused(
    tmp_path: Path, variant: str, abi: bool, fits: str
) -> None:
    label = label_of(variant)
    package = write_pair(tmp_path, label, files={BUILD_INFO: build_info(label, CXX11_ABI=abi)})
    message = refused(package, tmp_path / "out", LabelMismatch)
    assert fits in message
    assert f"build {variant} against the torch" in message


# ------------------------------------------------------------ dependencies


def test_missing_library_is_refused(tmp_path: Path) -> None:
    package = write_binding(tmp_path, label_of())
    message = refused(package, tmp_path / "out")
    assert "libflashinfer-0.1.6-cpu_0.conda" in message
    assert "same folder" in message


@pytest.mark.parametrize(
    "pin",
    [
        "libflashinfer",
        "libflashinfer 0.1.6",
        "libflashinfer >=0.1.6",
        "libflashinfer 0.1.6 cpu_1",
        "libflashinfer 0.1.6 cu130_0",
        "libflashinfer 0.1.5 cpu_0",
        None,
    ],
)
def test_library_that_is_not_pinned_exactly_is_refused(tmp_path: Path, pin: str | None) -> None:
    depends = ["python >=3.8", "pytorch 2.13.*"] + ([pin] if pin else [])
    package = write_pair(tmp_path, index={"depends": depends})
    assert "expected: libflashinfer 0.1.6 cpu_0" in refused(package, tmp_path / "out")


@pytest.mark.parametrize(
    "torch", ["pytorch 2.12.*", "pytorch", "pytorch >=2.13", "pytorch 2.13", None]
)
def test_torch_that_is_not_the_labels_is_refused(tmp_path: Path, torch: str | None) -> None:
    depends = ["python >=3.8", "libflashinfer 0.1.6 cpu_0"] + ([torch] if torch else [])
    package = write_pair(tmp_path, index={"depends": depends})
    assert "expected: torch==2.13.*" in refused(package, tmp_path / "out")


def test_unknown_dependency_is_refused_by_name(tmp_path: Path) -> None:
    depends = ["python >=3.8", "pytorch 2.13.*", "libflashinfer 0.1.6 cpu_0", "foo-tool >=1"]
    message = refused(write_pair(tmp_path, index={"depends": depends}), tmp_path / "out")
    assert "'foo-tool'" in message
    assert "[tool.conda-bridge.dependencies]" in message


@pytest.mark.parametrize("depends", [None, "python", [1], ["python >=3.8 x y z"], ["a[b=c]"]])
def test_malformed_dependencies_are_refused(tmp_path: Path, depends: object) -> None:
    package = write_pair(tmp_path, index={"depends": depends})
    assert "depends" in refused(package, tmp_path / "out")


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("2.13.*", "==2.13.*"),
        ("2.13", "==2.13"),
        ("=2.13", "==2.13.*"),
        ("=2.13.*", "==2.13.*"),
        ("==2.13.1", "==2.13.1"),
        (">=3.8", ">=3.8"),
        (">=1.0,<2.0a0", ">=1.0,<2"),
        (">=2.13.*", ">=2.13"),
        ("!=1.5.*", "!=1.5.*"),
        ("*", ""),
        ("", ""),
    ],
)
def test_version_constraints_are_translated(conda: str, pip: str) -> None:
    assert pip_specifier(conda, "toy") == pip


@pytest.mark.parametrize("conda", ["1|2", ">=", "^1", "1.0 2", "<1,|2", "=>1", "x"])
def test_constraints_without_a_pip_form_are_refused(conda: str) -> None:
    with pytest.raises(ArtifactError):
        pip_specifier(conda, "toy")


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("pytorch 2.13.*", "torch==2.13.*"),
        ("numpy", "numpy"),
        ("typing_extensions >=4", "typing-extensions>=4"),
        ("__glibc >=2.28,<3.0.a0", None),
        ("libtorch >=2.13.0,<2.14.0a0", None),
        ("cpython >=3.10", None),
        ("_python_abi3_support 1.*", None),
        ("libstdcxx >=12", None),
        ("cuda-version >=13,<14", None),
    ],
)
def test_dependencies_are_translated(conda: str, pip: str | None) -> None:
    assert pip_requirement(MatchSpec.parse(conda, "toy"), "toy") == pip


def test_a_pinned_build_has_no_pip_form() -> None:
    with pytest.raises(ArtifactError, match="knows no builds"):
        pip_requirement(MatchSpec.parse("numpy 2.1.* *openblas*", "toy"), "toy")
    with pytest.raises(ArtifactError, match="knows no builds"):
        pip_requirement(MatchSpec.parse("pytorch 2.13.0 cuda130_py312_0", "toy"), "toy")


@pytest.mark.parametrize("kind", ["*cuda*", "cuda*", "*cpu*", "cpu*"])
def test_the_kind_of_torch_is_for_the_index_to_say(kind: str) -> None:
    spec = MatchSpec.parse(f"pytorch 2.13.* {kind}", "toy")
    assert pip_requirement(spec, "toy") == "torch==2.13.*"


# ------------------------------------------------------------ payload that fits no wheel


@pytest.mark.parametrize(
    "path",
    [
        "site-packages/other/x.py",
        "site-packages/x.py",
        "site-packages/flashinfer-extra/x.py",
        "lib/x.so.1",
        "bin/flashinfer",
        "lib/python3.11/site-packages/flashinfer/x.py",
    ],
)
def test_file_without_a_place_in_the_wheel_is_refused(tmp_path: Path, path: str) -> None:
    package = write_pair(tmp_path, files={path: b"1", "x": None})
    assert path in refused(package, tmp_path / "out")


@pytest.mark.parametrize("module", ["_D.cpython-311-x86_64-linux-gnu.so", "_D.so"])
def test_module_for_one_python_is_refused(tmp_path: Path, module: str) -> None:
    compiled = toy.binding(
        more='__attribute__((visibility("default"))) int PyInit__D(void);'
        " int PyInit__D(void) { return 0; }\n"
    )
    package = write_pair(tmp_path, files={f"site-packages/flashinfer/{module}": compiled})
    assert "stable ABI" in refused(package, tmp_path / "out")


def test_a_library_that_is_no_module_is_not_taken_for_one(tmp_path: Path) -> None:
    files = {"site-packages/flashinfer/lib/libother.so.1": toy.library(soname="libother.so.1")}
    made = bridge(write_pair(tmp_path, files=files), tmp_path / "out")
    assert made.path.name == WHEEL
    assert "flashinfer/lib/libother.so.1" in made.payload


def test_package_without_a_module_is_refused(tmp_path: Path) -> None:
    assert "no extension module" in refused(
        write_pair(tmp_path, files={MODULE: None}), tmp_path / "out"
    )


def test_package_without_the_library_is_refused(tmp_path: Path) -> None:
    write_library(tmp_path, label_of(), files={"lib/libflashinfer.so": None})
    package = write_binding(tmp_path, label_of())
    assert "lib/libflashinfer.so: the file is missing" in refused(package, tmp_path / "out")


def test_file_in_both_packages_is_refused(tmp_path: Path) -> None:
    clash = {"site-packages/flashinfer/include/flashinfer/api.h": b"1"}
    assert "second member" in refused(write_pair(tmp_path, files=clash), tmp_path / "out")


def test_package_for_one_python_is_refused(tmp_path: Path) -> None:
    package = write_pair(tmp_path, index={"noarch": None})
    assert "CEP 20" in refused(package, tmp_path / "out")


def test_package_without_lower_python_bound_is_refused(tmp_path: Path) -> None:
    depends = ["python", "pytorch 2.13.*", "libflashinfer 0.1.6 cpu_0"]
    package = write_pair(tmp_path, index={"depends": depends})
    assert "lower bound" in refused(package, tmp_path / "out")


def test_package_with_entry_points_is_refused(tmp_path: Path) -> None:
    link = json.dumps({"noarch": {"type": "python", "entry_points": ["x = y:z"]}}).encode()
    package = write_pair(tmp_path, info={"info/link.json": link})
    assert "entry points" in refused(package, tmp_path / "out")


@pytest.mark.parametrize(
    "link",
    [
        {"noarch": {"type": "python", "entry_points": []}},
        {"noarch": {"type": "python"}},
        {"package_metadata_version": 1},
        {"noarch": {"type": "python"}, "comment": "entry_points"},
    ],
)
def test_a_package_without_entry_points_may_say_so(link: dict[str, object], tmp_path: Path) -> None:
    """What is asked is what link.json says, not which words are in it."""
    info = {"info/link.json": json.dumps(link).encode()}
    package = write_pair(tmp_path, info=info)
    assert bridge(package, tmp_path / "out").outcome == "written"


@pytest.mark.parametrize("entry_points", ["x = y:z", [1], {"x": "y:z"}])
def test_entry_points_that_are_none(entry_points: object, tmp_path: Path) -> None:
    link = {"noarch": {"type": "python", "entry_points": entry_points}}
    package = write_pair(tmp_path, info={"info/link.json": json.dumps(link).encode()})
    assert "entry_points is" in refused(package, tmp_path / "out")


def test_package_without_licence_is_refused(tmp_path: Path) -> None:
    package = write_pair(tmp_path)
    binding = conda_package.read(package)
    assert binding.licenses
    from conda_bridge.formats.conda_writer import PackageFile, write

    files = [
        PackageFile(member.path, member.read(), 0o755 if member.executable else 0o644)
        for member in binding.payload()
    ]
    write(package, index=binding.index, files=files, about=binding.about, level=1)
    assert "no licence file" in refused(package, tmp_path / "out")


# ------------------------------------------------------------ damaged and renamed input


@pytest.mark.parametrize("which", ["binding", "library"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_input_is_refused(tmp_path: Path, which: str, share: float) -> None:
    package = write_pair(tmp_path)
    damaged = package if which == "binding" else tmp_path / label_of().lib_conda_file
    data = damaged.read_bytes()
    damaged.write_bytes(data[: int(len(data) * share)])
    assert damaged.name in refused(package, tmp_path / "out")


@given(st.floats(0, 1, exclude_max=True), st.booleans())
@relaxed
def test_flipped_byte_is_found_or_harmless(tmp_path: Path, share: float, library: bool) -> None:
    package = write_pair(tmp_path)
    good = bridge(package, tmp_path / "good")
    damaged = tmp_path / label_of().lib_conda_file if library else package
    data = bytearray(damaged.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    damaged.write_bytes(data)
    try:
        made = bridge(package, tmp_path / "out", overwrite=True)
    except BridgeError as error:
        assert damaged.name in str(error)
    else:
        assert made.path.read_bytes() == good.path.read_bytes()


def test_renamed_package_is_refused(tmp_path: Path) -> None:
    package = write_pair(tmp_path)
    other = dataclasses.replace(label_of(), build_number=1)
    write_library(tmp_path, other)
    assert "was renamed" in refused(package.rename(tmp_path / other.conda_file), tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["numpy-2.0-py311_0.conda", "flashinfer-0.1.6-py311_0.conda", "flashinfer.conda"]
)
def test_names_of_others_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert name in refused(tmp_path / name, tmp_path / "out", LabelError)


def test_library_alone_has_no_wheel(tmp_path: Path) -> None:
    write_pair(tmp_path)
    library = tmp_path / label_of().lib_conda_file
    assert "give the flashinfer package" in refused(library, tmp_path / "out", LabelError)


# ------------------------------------------------------------ the program


def program(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts/bridge.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
    )


def test_program_goes_on_after_a_failure(root: Path, tmp_path: Path) -> None:
    """One good package, one of the wrong ABI (exit code 1), one damaged (exit code 2)."""
    good = write_pair(tmp_path)
    label = label_of("cu124_torch24")
    wrong = write_pair(tmp_path, label, files={BUILD_INFO: build_info(label, CXX11_ABI=True)})
    damaged = write_pair(tmp_path, label_of("cpu_torch212"))
    damaged.write_bytes(damaged.read_bytes()[:100])

    done = program(root, wrong, good, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert WHEEL in done.stdout
    assert "conda-forge's pytorch 2.4" in done.stderr

    done = program(root, damaged, wrong, good, "-o", tmp_path / "out", "--json")
    assert done.returncode == 2
    result: dict[str, Any] = json.loads(done.stdout)
    assert [error["error"] for error in result["errors"]] == ["ArtifactError", "LabelMismatch"]
    [made] = result["wheels"]
    assert made["outcome"] == "unchanged"
    assert made["sha256"] == hashlib.sha256((tmp_path / "out" / WHEEL).read_bytes()).hexdigest()
    assert made["file"] == str(tmp_path / "out" / WHEEL)
    assert {"size", "seconds", "payload_files"} <= made.keys()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [WHEEL]


def test_program_dry_run_conflict_and_overwrite(root: Path, tmp_path: Path) -> None:
    package, output = write_pair(tmp_path), tmp_path / "out"
    done = program(root, package, "-o", output, "--dry-run")
    assert (done.returncode, output.exists()) == (0, False)
    assert f"would write  {output / WHEEL}" in done.stdout
    output.mkdir()
    (output / WHEEL).write_bytes(b"published")
    done = program(root, package, "-o", output)
    assert done.returncode == 1
    assert "other bytes" in done.stderr
    done = program(root, package, "-o", output, "--overwrite", "--platform-tag", "linux_x86_64")
    assert done.returncode == 0
    assert done.stdout.startswith("written")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/flashinfer-0.1.6-cpu_torch213_0.conda", "there is no such file"),
        ("nowhere/flashinfer-0.1.6-cpu_torch213_0.tar.bz2", "there is no such file"),
        ("nowhere/*.conda", "there is no such file"),
        ("", "is a folder"),
    ],
)
def test_program_names_a_path_that_is_not_there(
    root: Path, tmp_path: Path, name: str, words: str
) -> None:
    done = program(root, tmp_path / name, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {tmp_path / name}: {words}\n  expected: a flashinfer package" in done.stderr
    assert not (tmp_path / "out").exists()


def test_program_help_has_an_example(root: Path) -> None:
    done = program(root, "--help")
    assert done.returncode == 0
    assert (
        "scripts/bridge.py dist/channel/linux-64/flashinfer-*.conda -o dist/wheels/" in done.stdout
    )


def test_program_reports_an_output_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    package = write_pair(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    done = program(root, package, "-o", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
