"""apt without a change to the machine: mirrors, the records of a suite, Debian in the lock."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from deb_factory import make_deb

from conda_bridge.errors import ToolchainError
from flashinfer_build.toolchain.debian import apt, locking
from flashinfer_build.toolchain.debian.locking import WantedCuda, lock_debs

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt on this machine")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get and an apt-config that say what lies in two files."""
    for name in ("apt-get", "apt-config"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\ncat "{tmp_path}/{name}.txt"\n')
        program.chmod(0o755)
        (tmp_path / f"{name}.txt").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    return tmp_path


def test_the_machines_mirror_comes_first_and_other_archives_do_not_count(sources: Path) -> None:
    (sources / "apt-get.txt").write_text(
        "https://packages.example.org/tool/ Tool\n"
        "https://packages.example.org/nameless/debian/stable/ Nameless\n"
        "http://mirror.example.org/deb/ Debian\n"
        "http://mirror.example.org/deb/ Debian\n"
        "http://mirror.example.org/debian-security/ Debian-Security\n"
        "https://ubuntu.example.org/ubuntu/ Ubuntu\n"
    )
    assert apt.mirrors() == ["http://mirror.example.org/deb", apt.DEFAULT_MIRROR]


@pytest.mark.parametrize("unknown", ["", "$(LABEL)"])
def test_before_the_first_update_the_address_has_to_do(sources: Path, unknown: str) -> None:
    (sources / "apt-get.txt").write_text(
        f"https://packages.example.org/tool/ {unknown}\n"
        f"http://mirror.example.org/debian/ {unknown}\n"
        f"http://mirror.example.org/debian-security/ {unknown}\n"
        f"mirror+file:///etc/apt/debian.list {unknown}\n"
        f"https://other.example.org/artifacts/debian-remote/ {unknown}\n"
    )
    assert apt.mirrors() == [
        "http://mirror.example.org/debian",
        "mirror+file:///etc/apt/debian.list",
        "https://other.example.org/artifacts/debian-remote",
        apt.DEFAULT_MIRROR,
    ]


def test_debians_own_mirror_is_there_once(sources: Path) -> None:
    (sources / "apt-get.txt").write_text("http://deb.debian.org/debian/ Debian\n")
    assert apt.mirrors() == ["http://deb.debian.org/debian"]


def test_without_apt_there_is_debians_own_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    assert apt.mirrors() == [apt.DEFAULT_MIRROR]
    assert apt.settings().proxy is None


def test_a_mirror_can_be_named(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources / "apt-get.txt").write_text("http://mirror.example.org/debian/ Debian\n")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "https://snapshot.example.org/20261125/")
    assert apt.mirrors() == ["https://snapshot.example.org/20261125"]


def test_apts_proxy_and_certificates_are_used(sources: Path) -> None:
    (sources / "apt-config.txt").write_text(
        "PROXY='http://proxy.example.org:3128/'\nCA='/etc/company.pem'\n"
    )
    found = apt.settings()
    assert (found.proxy, found.certificates) == (
        "http://proxy.example.org:3128/",
        "/etc/company.pem",
    )
    (sources / "apt-config.txt").write_text("PROXY='DIRECT'\n")
    assert apt.settings().proxy is None


# ---------------------------------------------------------------- a suite


class Archive:
    """A Debian archive in a folder, with Release files that nobody has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: dict[str, dict[str, list[str]]] = {}

    def add(self, suite: str, package: str, version: str, component: str = "main") -> str:
        deb = make_deb(self.folder, package, version, files={"x": f"{package} {version}"})
        stanza = (
            f"Package: {package}\nVersion: {version}\nArchitecture: amd64\n"
            f"Maintainer: nobody <nobody@example.org>\nDescription: toy\n"
            f"Filename: {deb.path}\nSize: {deb.size}\nSHA256: {deb.sha256}\n"
        )
        self.packages.setdefault(suite, {"main": [], "non-free": []})[component].append(stanza)
        self._write(suite)
        return deb.filename

    def drop(self, suite: str) -> None:
        self.packages[suite] = {"main": [], "non-free": []}

    def _write(self, suite: str) -> None:
        home = self.folder / "dists" / suite
        for component, stanzas in self.packages[suite].items():
            listed = home / component / "binary-amd64/Packages"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("\n".join(stanzas))
        (home / "Release").write_text(
            f"Origin: Toy\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
            "Components: main non-free\nDate: Wed, 25 Nov 2026 00:00:00 UTC\n"
        )


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive(tmp_path / "archive")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, made.folder.as_uri())
    wanted = {
        "12.4": WantedCuda({"trixie": ("nvidia-cuda-toolkit", "libcub-dev")}),
        "11.8": WantedCuda({"bookworm": ("nvidia-cuda-toolkit",)}, {"bookworm": ("g++-11",)}),
    }
    monkeypatch.setattr(locking, "CUDA", wanted)
    monkeypatch.setattr(locking, "SYSROOTS", {"2.31": {"bullseye": ("libc6",)}})
    made.add("trixie", "nvidia-cuda-toolkit", "12.4.131~12.4.1-2", "non-free")
    made.add("trixie", "libcub-dev", "2.3.2-2")
    made.add("bookworm", "nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1", "non-free")
    made.add("bookworm", "g++-11", "11.3.0-12")
    made.add("bullseye", "libc6", "2.31-13+deb11u11")
    return made


TRUST = "trusted=yes"


@needs_apt
def test_the_newest_version_of_a_suite_without_touching_the_machine(
    archive: Archive, tmp_path: Path
) -> None:
    archive.add("trixie", "libcub-dev", "2.10.0-1")
    archive.add("sid", "libcub-dev", "3.0-1")
    before = sorted(Path("/var/lib/apt/lists").glob("*"))
    suite = apt.Suite("trixie", archive.folder.as_uri(), tmp_path / "apt", TRUST)
    record = suite.record("libcub-dev")
    assert record.version == "2.10.0-1"
    assert (archive.folder / record.path).stat().st_size == record.size
    assert suite.record("nvidia-cuda-toolkit").version.startswith("12.4")  # of non-free
    with pytest.raises(ToolchainError, match="the suite trixie has no g\\+\\+-11"):
        suite.record("g++-11")
    assert sorted(Path("/var/lib/apt/lists").glob("*")) == before


@needs_apt
def test_a_suite_that_is_not_there_is_an_error(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot read the suite buzz"):
        apt.Suite("buzz", archive.folder.as_uri(), tmp_path / "apt", TRUST)


@needs_apt
def test_an_unsigned_archive_is_refused(archive: Archive, tmp_path: Path) -> None:
    if not apt._KEYRING.is_file():
        pytest.skip("no keys of Debian on this machine")
    with pytest.raises(ToolchainError, match="cannot read the suite trixie"):
        apt.Suite("trixie", archive.folder.as_uri(), tmp_path / "apt")


def test_locking_needs_apt_and_debians_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="no apt with Debian's keys") as caught:
        apt.Suite("trixie", "http://127.0.0.1:9/", tmp_path / "apt")
    assert "container" in caught.value.fix


def locked(keep: dict[str, Any] | None = None) -> dict[str, Any]:
    debs, debian = lock_debs(keep or {}, trust=TRUST)
    return {"debs": debs, "debian": debian}


@needs_apt
def test_every_package_by_its_digest_and_place(archive: Archive) -> None:
    lock = locked()
    assert lock["debian"] == {
        "cuda": {
            "12.4": {
                "toolkit": [
                    "libcub-dev_2.3.2-2_amd64.deb",
                    "nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb",
                ],
                "gxx": [],
            },
            "11.8": {
                "toolkit": ["nvidia-cuda-toolkit_11.8.89~11.8.0-5~deb12u1_amd64.deb"],
                "gxx": ["g++-11_11.3.0-12_amd64.deb"],
            },
        },
        "sysroot": {"2.31": ["libc6_2.31-13+deb11u11_amd64.deb"]},
    }
    for name, entry in lock["debs"].items():
        assert (archive.folder / entry["path"]).name == name
        assert len(entry["sha256"]) == 64
        assert set(entry) == {"path", "size", "sha256"}  # no mirror's address


@needs_apt
def test_what_is_locked_stays_and_asks_nobody(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locked()
    archive.add("trixie", "libcub-dev", "2.10.0-1")
    assert "libcub-dev_2.10.0-1_amd64.deb" in locked()["debs"]
    monkeypatch.setattr(apt, "_run", lambda *_args, **_kwargs: pytest.fail("apt was asked"))
    assert locked(first) == first


@needs_apt
def test_another_wish_is_locked_anew_and_the_rest_stays(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locked()
    archive.add("bookworm", "g++-11", "11.4.0-1")
    archive.add("trixie", "libthrust-dev", "2.3.2-2")
    more = WantedCuda({"trixie": ("nvidia-cuda-toolkit", "libcub-dev", "libthrust-dev")})
    monkeypatch.setitem(locking.CUDA, "12.4", more)
    again = locked(first)
    assert "libthrust-dev_2.3.2-2_amd64.deb" in again["debian"]["cuda"]["12.4"]["toolkit"]
    assert again["debian"]["cuda"]["11.8"] == first["debian"]["cuda"]["11.8"]


@needs_apt
def test_a_suite_that_has_moved_on_is_noticed(archive: Archive) -> None:
    archive.add("trixie", "nvidia-cuda-toolkit", "12.9.1-1", "non-free")
    with pytest.raises(
        ToolchainError, match=r"nvidia-cuda-toolkit of trixie is now 12\.9"
    ) as caught:
        locked()
    assert "12.4." in caught.value.expected
