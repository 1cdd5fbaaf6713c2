"""The lock: complete for every supported Python, and refused when it is damaged."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag, parse_tag
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from conda_bridge.errors import ConfigError, ToolchainError
from flashinfer_build.toolchain.lock import LOCK_FILE, Lock

PYTHONS = ["cp310", "cp311", "cp312", "cp313"]
DATA: dict[str, Any] = json.loads(LOCK_FILE.read_text())


@pytest.fixture(scope="module")
def lock() -> Lock:
    return Lock.read()


def installable(filename: str, python: str) -> bool:
    """Whether a CPython on x86-64 Linux can install the wheel."""

    def fits(tag: Tag) -> bool:
        old_enough = tag.interpreter in ("py3", "py2", python) or (
            tag.abi == "abi3" and int(tag.interpreter[3:]) <= int(python[3:])
        )
        right_abi = tag.abi in ("none", "abi3", python)
        return old_enough and right_abi and tag.platform.endswith(("any", "x86_64"))

    return any(fits(tag) for tag in parse_wheel_filename(filename)[3])


MINORS = [(2, minor) for minor in range(4, 16)]
# There are no wheels of these on the Python index.
ABSENT = [((2, 4), "cp313"), ((2, 15), "cp310")]
BUILT_WITH = {(2, 4): (12, 1), (2, 5): (12, 4), (2, 6): (12, 4), (2, 7): (12, 6), (2, 15): (13, 2)}


@pytest.mark.parametrize(
    ("minor", "python"), [(m, p) for m in MINORS for p in PYTHONS if (m, p) not in ABSENT]
)
def test_every_set_is_complete_and_installable(
    lock: Lock, minor: tuple[int, int], python: str
) -> None:
    torch = lock.torch(minor, python)
    assert torch.builds
    in_between = (12, 8) if minor < (2, 11) else (13, 0)
    assert torch.cuda == BUILT_WITH.get(minor, in_between)
    for build in torch.builds:
        assert Version(build.wheel.version).release[:2] == minor
        assert build.wheel.name == "torch"
        has_cuda = Version(build.wheel.version).local != "cpu"
        assert has_cuda == bool(build.libraries)
        for wheel in (build.wheel, *build.libraries, *torch.requires):
            assert installable(wheel.filename, python), wheel.filename
    names = {wheel.name for wheel in torch.requires}
    wanted = {"numpy", "ninja", "packaging", "setuptools", "wheel", "pip", "sympy", "filelock"}
    assert wanted <= names
    assert len(names) == len(torch.requires)


@pytest.mark.parametrize(("minor", "python"), ABSENT)
def test_what_the_index_does_not_have_is_not_locked(
    lock: Lock, minor: tuple[int, int], python: str
) -> None:
    with pytest.raises(ToolchainError, match=f"is not locked for {python}"):
        lock.torch(minor, python)


def test_wheels_for_another_python_are_noticed() -> None:
    assert not installable("numpy-2.4.6-cp312-cp312-manylinux_2_28_x86_64.whl", "cp311")
    assert not installable("numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl", "cp311")
    assert parse_tag("cp311-cp311-any")


@pytest.mark.parametrize("release", [(13, 0), (13, 2)])
def test_the_compiler_is_complete(lock: Lock, release: tuple[int, int]) -> None:
    names = {wheel.name for wheel in lock.cuda(release).wheels}
    assert names == {
        "nvidia-cuda-cccl",
        "nvidia-cuda-crt",
        "nvidia-cuda-nvcc",
        "nvidia-cuda-runtime",
        "nvidia-nvvm",
    }
    nvcc = next(w for w in lock.cuda(release).wheels if w.name == "nvidia-cuda-nvcc")
    assert nvcc.version.startswith("{}.{}.".format(*release))


def test_the_tools_are_for_every_python(lock: Lock) -> None:
    assert {wheel.name for wheel in lock.tools} == {"ninja", "packaging"}
    assert all(installable(wheel.filename, python) for wheel in lock.tools for python in PYTHONS)


def test_every_digest_is_used_and_occurs_once(lock: Lock) -> None:
    text = json.dumps({key: DATA[key] for key in ("tools", "cuda", "torch")})
    assert [name for name in DATA["wheels"] if json.dumps(name) not in text] == []
    assert len(set(DATA["wheels"].values())) == len(DATA["wheels"])


def test_debians_compilers_are_complete(lock: Lock) -> None:
    assert set(lock.debian_cuda) == {(11, 8), (12, 4), (12, 5)}
    for (major, minor), locked in lock.debian_cuda.items():
        debs = {deb.package: deb for deb in locked.toolkit}
        runtime = "libcudart11.0" if major == 11 else "libcudart12"
        wanted = {"nvidia-cuda-toolkit", "nvidia-cuda-dev", runtime}
        assert debs.keys() == wanted | {"libcub-dev", "libcu++-dev", "libthrust-dev"}
        for name in wanted:
            assert debs[name].upstream.startswith(f"{major}.{minor}.")
        assert bool(locked.gxx) == (major == 11)  # its nvcc refuses g++ 12
    assert lock.debian_cuda[(12, 4)].toolkit[-1].upstream == "12.4.131"
    gxx = {deb.package: deb.upstream for deb in lock.debian_cuda[(11, 8)].gxx}
    assert gxx["g++-11"] == gxx["libstdc++-11-dev"] == "11.3.0"


def test_the_sysroot_is_of_one_release(lock: Lock) -> None:
    versions = {deb.package: deb.upstream for deb in lock.sysroots["2.31"]}
    assert versions["libc6"] == versions["libc6-dev"] == "2.31"
    assert {"linux-libc-dev", "libcrypt-dev", "libcrypt1"} <= set(versions)


def test_no_mirror_is_in_the_lock() -> None:
    assert "://" not in LOCK_FILE.read_text()


def test_every_deb_is_used(lock: Lock) -> None:
    text = json.dumps(DATA["debian"])
    assert DATA["debs"]
    assert [name for name in DATA["debs"] if json.dumps(name) not in text] == []


def test_unknown_cuda_and_torch_are_refused_with_what_there_is(lock: Lock) -> None:
    with pytest.raises(ToolchainError, match=r"CUDA 12\.4 has no compiler") as caught:
        lock.cuda((12, 4))
    assert "13.0" in caught.value.expected
    with pytest.raises(ToolchainError, match=r"torch 2\.3 is not locked for cp311") as caught:
        lock.torch((2, 3), "cp311")
    assert "2.13" in caught.value.expected
    with pytest.raises(ToolchainError, match="cp39"):
        lock.torch((2, 13), "cp39")


def damage(change: str) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    first = next(iter(data["wheels"]))
    if change == "schema":
        data["schema"] = 99
    elif change == "missing digest":
        del data["wheels"][first]
    elif change == "short digest":
        data["wheels"][first] = "abc"
    elif change == "no hexadecimal":
        data["wheels"][first] = "z" * 64
    elif change == "no wheel":
        data["wheels"]["numpy.tar.gz"] = "0" * 64
    elif change == "deb without digest":
        next(iter(data["debs"].values())).pop("sha256")
    elif change == "deb with another path":
        next(iter(data["debs"].values()))["path"] = "pool/main/x/other.deb"
    elif change == "deb outside":
        name, entry = next(iter(data["debs"].items()))
        entry["path"] = f"pool/../../{name}"
    elif change == "deb that is not there":
        data["debs"].pop(next(iter(data["debs"])))
    elif change == "no table":
        del data["torch"]
    elif change == "wrong kind":
        data["wheels"] = [1, 2]
    return data


@pytest.mark.parametrize(
    "change",
    ["schema", "missing digest", "short digest", "no hexadecimal", "no wheel", "no table"]
    + ["wrong kind", "deb without digest", "deb with another path", "deb outside"]
    + ["deb that is not there"],
)
def test_damaged_lock_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(damage(change)))
    with pytest.raises(ConfigError) as caught:
        Lock.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_no_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Lock.read(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Lock.read(tmp_path / "none.json")
