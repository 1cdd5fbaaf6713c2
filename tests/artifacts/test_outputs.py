"""What the main job made: names, one payload, an index that pip and a channel that conda read."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

from conda_bridge.bridge.convert import bridge, wheel_path
from conda_bridge.formats import conda_package
from conda_bridge.project import Project
from flashinfer_build.label import Label

FLASHINFER = Project.load(Path(__file__).parents[2] / "pyproject.toml")


def test_the_files_have_the_names_of_the_label(dist: Path, label: Label) -> None:
    variant = label.variant.id
    cuda_tag, local = label.variant.cuda_tag, label.variant.local_version
    version = (dist / "../../../version.txt").read_text().strip()
    for name in (
        f"channel/linux-64/flashinfer-{version}-{variant}_0.conda",
        f"channel/linux-64/libflashinfer-{version}-{cuda_tag}_0.conda",
        f"wheels/flashinfer-{version}+{local}-cp38-abi3-linux_x86_64.whl",
        f"index/{cuda_tag}/torch2.13/flashinfer/index.html",
    ):
        assert (dist / name).is_file(), name


def _conda_payload(path: Path) -> dict[str, str]:
    package = conda_package.read(path)
    payload = {}
    for member in package.payload():
        digest = sha256()
        for chunk in member.chunks():
            digest.update(chunk)
        target = wheel_path(package, member.path, FLASHINFER)
        if target is not None:
            payload[target] = digest.hexdigest()
    return payload


def test_wheel_and_conda_packages_hold_the_same_bytes(dist: Path, label: Label) -> None:
    channel = dist / "channel" / "linux-64"
    conda = _conda_payload(channel / label.conda_file)
    conda |= _conda_payload(channel / label.lib_conda_file)
    with zipfile.ZipFile(dist / "wheels" / label.wheel_file) as wheel:
        inside = {
            name: sha256(wheel.read(name)).hexdigest()
            for name in wheel.namelist()
            if ".dist-info/" not in name
        }
    assert inside == conda
    assert "flashinfer/lib/libflashinfer.so" in inside
    assert "flashinfer/_C.abi3.so" in inside


def test_the_record_of_the_conda_package_is_true(dist: Path, label: Label) -> None:
    package = conda_package.read(dist / "channel" / "linux-64" / label.conda_file)
    files = {
        member.path.removeprefix("site-packages/"): member.read() for member in package.payload()
    }
    info = f"flashinfer-{label.wheel_version}.dist-info"
    rows = list(csv.reader(files[f"{info}/RECORD"].decode().splitlines()))
    assert {name for name, _, _ in rows} == set(files)
    for name, digest, size in rows:
        if name != f"{info}/RECORD":
            raw = base64.urlsafe_b64encode(sha256(files[name]).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={raw}", str(len(files[name]))), name
    # As conda-build writes it: the packages of all builders have the same bytes.
    assert files[f"{info}/INSTALLER"] == b"conda"


def test_the_python_files_are_those_of_the_checkout(dist: Path, label: Label, root: Path) -> None:
    with zipfile.ZipFile(dist / "wheels" / label.wheel_file) as wheel:
        for source in (root / "flashinfer").glob("*.py"):
            if source.name != "_build_info.py":
                assert wheel.read(f"flashinfer/{source.name}") == source.read_bytes()


def _program(root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / name), *arguments]
    environ = {**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=root)


def test_verify_finds_nothing_and_lists_the_gpu_architectures(dist: Path, root: Path) -> None:
    done = _program(root, "verify.py", "--json", str(dist))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["findings"], report["exit_code"]) == (0, 0)
    kinds = [artifact["kind"] for artifact in report["artifacts"]]
    assert sorted(kinds) == ["conda"] * 4 + ["pair"] * 2 + ["wheel"] * 2
    facts = {artifact["artifact"]: artifact["facts"] for artifact in report["artifacts"]}
    version = (root / "version.txt").read_text().strip()
    assert facts[f"libflashinfer-{version}-cpu_0.conda"]["archs"] == []
    archs = facts[f"libflashinfer-{version}-cu130_0.conda"]["archs"]
    assert sorted(archs) == ["compute_80", "sm_80", "sm_90a"]


def test_a_second_build_does_nothing_and_says_so(dist: Path, root: Path) -> None:
    command = ["--variant", "cpu_torch213", "--variant", "cu130_torch213", "--output", str(dist)]
    done = _program(root, "build.py", "--json", *command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["unchanged"] is True
    outcomes = [s["outcome"] for v in result["variants"].values() for s in v["stages"]]
    assert outcomes == ["kept"] * 18
    done = _program(root, "build.py", *command)
    assert "Nothing has changed" in done.stdout


def test_published_bytes_are_never_replaced_silently(
    dist: Path, root: Path, tmp_path: Path
) -> None:
    label = Label.parse_conda_file("flashinfer-0.1.6-cpu_torch213_0.conda")
    name = Label.compose(label.variant).conda_file
    taken = tmp_path / "dist" / "channel" / "linux-64" / name
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"somebody else's")
    command = ["--variant", "cpu_torch213", "--output", str(tmp_path / "dist")]
    done = _program(root, "build.py", *command)
    assert done.returncode in (1, 2), done.stdout
    assert name in done.stderr
    assert taken.read_bytes() == b"somebody else's"
    assert not (tmp_path / "dist" / "wheels" / label.wheel_file).exists()


def test_auditwheel_agrees_with_the_platform_tag(dist: Path, label: Label, tmp_path: Path) -> None:
    """The wheel that is made with ``--platform-tag auto``, judged by auditwheel on its own."""
    package = dist / "channel" / "linux-64" / label.conda_file
    wheel = bridge(package, tmp_path, project=FLASHINFER, platform_tag="auto").path
    tag = wheel.stem.rpartition("-")[2]
    assert tag.startswith("manylinux_2_")
    command = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["sym_tag"] == tag
    assert not shown["unsupported_isa"]
    # All that is not in the policy is torch's, which the wheel requires.
    assert set(shown["external_libs"]) == {"libc10.so", "libtorch_cpu.so"}
