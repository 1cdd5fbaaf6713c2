"""One wheel, whoever built the packages: no order, mode or remark of a builder is in its bytes."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import factories
import pytest
from factories import Member, bridge, label_of, tar_file, write_pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conda_bridge.errors import ArtifactError, ConflictError, LabelError

LABEL = label_of()
# A file of several pieces, an empty one, names that sort by bytes and not by letters.
MORE = {
    "site-packages/flashinfer/a.bin": random.Random(1).randbytes((5 << 20) // 2),
    "site-packages/flashinfer/a/b.py": b"",
    "site-packages/flashinfer/a-b.py": b"1\n",
    "site-packages/flashinfer/é.py": b"2\n",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages as the embedded builder writes them."""
    folder = tmp_path_factory.mktemp("reference")
    write_pair(folder, LABEL, files=MORE)
    return folder


@pytest.fixture(scope="module")
def wheel(reference: Path) -> bytes:
    """The wheel of the embedded builder's packages."""
    return bridge(reference / LABEL.conda_file, reference / "out").path.read_bytes()


Change = Callable[[list[Member]], Iterable[Member]]


def packed_again(
    reference: Path, folder: Path, *, payload: Change = list, info: Change = list
) -> Path:
    """Writes both packages into `folder` with these changes; returns flashinfer's."""
    for name in (LABEL.conda_file, LABEL.lib_conda_file):
        members, about = factories.unpacked(reference / name)
        factories.raw_conda(
            folder / name,
            payload=factories.tar_bytes(payload(members)),
            info=factories.tar_bytes(info(about)),
        )
    return folder / LABEL.conda_file


def edited(members: Iterable[Member], **documents: Callable[[Any], object]) -> list[Member]:
    """`members` with each JSON document of ``info/`` replaced by what its function makes of it."""
    changed = []
    for header, data in members:
        edit = documents.get(header.name.removeprefix("info/").removesuffix(".json"))
        new = json.dumps(edit(json.loads(data))).encode() if edit else data
        changed.append(tar_file(header.name, new))
    return changed


# ------------------------------------------------------------ the archives


@given(data=st.data(), mode=st.sampled_from([0o600, 0o644, 0o664, 0o755, 0o777]))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_members_gives_the_same_bytes(
    tmp_path: Path, reference: Path, wheel: bytes, data: st.DataObject, mode: int
) -> None:
    def shuffled(members: list[Member]) -> list[Member]:
        return [
            (_like(header, mode=mode, mtime=1, uid=7, uname="me"), content)
            for header, content in data.draw(st.permutations(members))
        ]

    package = packed_again(reference, tmp_path, payload=shuffled, info=shuffled)
    made = bridge(package, tmp_path / "out", overwrite=True)
    assert made.path.read_bytes() == wheel
    assert [path.name for path in made.path.parent.iterdir()] == [LABEL.wheel_file]
    assert bridge(package, tmp_path / "dry", dry_run=True).payload == made.payload
    assert not (tmp_path / "dry").exists()


def _like(header: tarfile.TarInfo, **attributes: Any) -> tarfile.TarInfo:
    changed = copy.copy(header)
    for key, value in attributes.items():
        setattr(changed, key, value)
    return changed


def test_the_order_is_that_of_the_bytes_of_the_paths(wheel: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(wheel)
    with zipfile.ZipFile(tmp_path / "x.whl") as archive:
        names = archive.namelist()
        modes = {item.filename: item.external_attr >> 16 for item in archive.infolist()}
    first, last = "flashinfer/_C.abi3.so", "flashinfer/é.py"
    payload = names[: names.index(last) + 1]
    assert payload == sorted(payload, key=str.encode)
    assert (payload[0], payload[-1]) == (first, last)
    library = "flashinfer/lib/libflashinfer.so"
    assert names[len(payload) :][:2] == ["flashinfer/include/flashinfer/api.h", library]
    assert names[-1].endswith(".dist-info/RECORD")
    assert {name for name, mode in modes.items() if mode == 0o100755} == {first, library}
    assert set(modes.values()) == {0o100755, 0o100644}


@pytest.mark.parametrize("part", ["payload", "info"])
def test_folders_in_the_archive_do_not_count(
    tmp_path: Path, reference: Path, wheel: bytes, part: str
) -> None:
    def with_folders(members: list[Member]) -> list[Member]:
        folders = {header.name.rpartition("/")[0] for header, _ in members}
        return [tar_file(name, type=tarfile.DIRTYPE, mode=0o755) for name in folders] + members

    changes: dict[str, Any] = {part: with_folders}
    assert bridge(packed_again(reference, tmp_path, **changes), tmp_path).path.read_bytes() == wheel


# ------------------------------------------------------------ .tar.bz2


@pytest.mark.parametrize("old", ["both", "flashinfer", "libflashinfer"])
def test_the_older_form_of_either_package(
    tmp_path: Path, reference: Path, wheel: bytes, old: str
) -> None:
    package, library = copied(reference, tmp_path)
    if old != "libflashinfer":
        package = in_the_older_form(package)
    if old != "flashinfer":
        library = in_the_older_form(library)
    made = bridge(package, tmp_path / "out")
    assert made.path.read_bytes() == wheel
    assert (made.package, made.library) == (package, library)
    assert bridge(package, tmp_path / "dry", dry_run=True).payload == made.payload
    assert not (tmp_path / "dry").exists()


def copied(reference: Path, folder: Path) -> tuple[Path, Path]:
    package = Path(shutil.copy(reference / LABEL.conda_file, folder))
    return package, Path(shutil.copy(reference / LABEL.lib_conda_file, folder))


def in_the_older_form(path: Path) -> Path:
    made = factories.as_tar_bz2(path)
    path.unlink()
    return made


@given(data=st.data())
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_members_of_the_older_form(
    tmp_path: Path, reference: Path, wheel: bytes, data: st.DataObject
) -> None:
    for name in (LABEL.conda_stem, LABEL.library.conda_stem):
        payload, info = factories.unpacked(reference / f"{name}.conda")
        order = data.draw(st.permutations([*payload, *info]))
        factories.raw_tar_bz2(tmp_path / f"{name}.tar.bz2", order)
    made = bridge(tmp_path / f"{LABEL.conda_stem}.tar.bz2", tmp_path / "out", overwrite=True)
    assert made.path.read_bytes() == wheel


def test_a_library_in_both_forms_has_to_be_one(
    tmp_path: Path, reference: Path, wheel: bytes
) -> None:
    package, library = copied(reference, tmp_path)
    other = factories.as_tar_bz2(library)
    assert bridge(package, tmp_path / "out").path.read_bytes() == wheel
    factories.write_library(tmp_path / "b", LABEL, files={"include/flashinfer/api.h": b"other\n"})
    factories.as_tar_bz2(tmp_path / "b" / LABEL.lib_conda_file, tmp_path)
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match=r"include/flashinfer/api\.h differs") as caught:
            bridge(package, tmp_path / "none", dry_run=dry_run)
        assert str(other) in str(caught.value)
        assert library.name in str(caught.value)
        assert not (tmp_path / "none").exists()
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=re.escape(other.name)):
        bridge(package, tmp_path / "none")
    library.unlink()
    with pytest.raises(ArtifactError, match=re.escape(other.name)):
        bridge(package, tmp_path / "none")
    other.unlink()
    with pytest.raises(ArtifactError, match=re.escape(f"{library.name} or {other.name} in the")):
        bridge(package, tmp_path / "none")


def test_a_library_that_lies_of_its_files_in_one_form(tmp_path: Path, reference: Path) -> None:
    """paths.json is the other's, the files are not."""
    package, library = copied(reference, tmp_path)
    payload, info = factories.unpacked(library)
    [header] = [header for header, _ in payload if header.name.endswith("api.h")]
    lies = [(head, data[::-1] if head is header else data) for head, data in payload]
    other = factories.raw_tar_bz2(tmp_path / f"{LABEL.library.conda_stem}.tar.bz2", [*info, *lies])
    with pytest.raises(ArtifactError, match=r"api\.h: sha256 is") as caught:
        bridge(package, tmp_path / "out")
    assert other.name in str(caught.value)


def test_an_older_package_of_another_name_has_no_wheel(tmp_path: Path) -> None:
    for name in ("numpy-2.0-py311_0.tar.bz2", "flashinfer-0.1.6-py311_0.tar.bz2"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(LabelError, match=re.escape(name)):
            bridge(tmp_path / name, tmp_path / "out")
    library = f"{LABEL.library.conda_stem}.tar.bz2"
    (tmp_path / library).write_bytes(b"")
    with pytest.raises(LabelError, match="give the flashinfer package"):
        bridge(tmp_path / library, tmp_path / "out")


# ------------------------------------------------------------ what builders say of themselves

OF_CONDA_BUILD = {
    "channels": ["local"],
    "conda_build_version": "26.7.1",
    "conda_version": "26.7.1",
    "doc_url": "https://example.org/of-a-builder",
    "documentation": "https://example.org/of-a-builder",
    "env_vars": {"CIO_TEST": "<not set>"},
    "extra": {"copy_test_source_files": True, "final": True},
    "homepage": "https://example.org/of-a-builder",
    "identifiers": [],
    "keywords": ["of", "a", "builder"],
    "license_family": "APACHE",
    "license_file": ["LICENSE"],
    "repository": "https://example.org/of-a-builder",
    "root_pkgs": [],
    "tags": [],
}


@pytest.mark.parametrize(
    "edit",
    [
        lambda about: {**about, **OF_CONDA_BUILD},
        lambda about: {**about, "dev_url": about["dev_url"][0]},
        lambda about: {**about, "home": ["https://example.org/home"]},
        lambda about: {**about, "home": " HTTPS://EXAMPLE.org/home\n"},
        lambda about: {**about, "license": "apache-2.0"},
        lambda about: {**about, "summary": "another", "description": "another"},
        lambda about: dict(reversed(about.items())),
    ],
    ids=["more keys", "a text", "a list", "spelling", "licence", "unused", "order"],
)
def test_about_json_of_another_builder(
    tmp_path: Path, reference: Path, wheel: bytes, edit: Callable[[Any], object]
) -> None:
    package = packed_again(
        reference, tmp_path, info=lambda members: edited(members, about=edit, index=dict)
    )
    assert bridge(package, tmp_path).path.read_bytes() == wheel


@pytest.mark.parametrize("home", ["https://example.org", "https://example.org/"])
def test_an_address_is_spelled_as_rattler_build_spells_it(tmp_path: Path, home: str) -> None:
    write_pair(tmp_path / "in")
    package = packed_again(
        tmp_path / "in",
        tmp_path,
        info=lambda members: edited(members, about=lambda about: {**about, "home": home}),
    )
    with zipfile.ZipFile(bridge(package, tmp_path).path) as archive:
        text = archive.read("flashinfer-0.1.6+cputorch2.13.dist-info/METADATA").decode()
    assert "Project-URL: Homepage, https://example.org/\n" in text


def test_summary_and_description_of_about_json_have_no_blanks_around(tmp_path: Path) -> None:
    bare = factories.source_metadata(LABEL, Summary="").removesuffix(factories.README)
    metadata = "site-packages/flashinfer-0.1.6+cputorch2.13.dist-info/METADATA"
    write_pair(tmp_path / "in", files={metadata: bare})
    made = set()
    for number, blank in enumerate(("", "\n", "  ")):

        def spaced(about: dict[str, object], blank: str = blank) -> dict[str, object]:
            texts = {key: f"{blank}{about[key]}{blank}" for key in ("summary", "description")}
            return {**about, **texts}

        package = packed_again(
            tmp_path / "in",
            tmp_path / str(number),
            info=lambda members: edited(members, about=spaced),
        )
        made.add(bridge(package, tmp_path / str(number)).path.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize(
    "depends",
    [
        lambda listed: listed[::-1],
        lambda listed: [*listed, *listed],
        lambda listed: ["python", *listed],
        lambda listed: [*listed, "python"],
        lambda listed: [*listed, "libgcc-ng >=12", "_libgcc_mutex"],
        lambda listed: [item.replace("0.1.6 cpu_0", "==0.1.6 cpu_0") for item in listed],
    ],
    ids=["order", "twice", "any python first", "any python last", "of the compiler", "=="],
)
def test_requirements_in_the_spelling_of_another_builder(
    tmp_path: Path, reference: Path, wheel: bytes, depends: Callable[[list[str]], list[str]]
) -> None:
    def edit(index: dict[str, Any]) -> dict[str, Any]:
        return {**index, "depends": depends(index["depends"]), "timestamp": 1}

    package = packed_again(reference, tmp_path, info=lambda members: edited(members, index=edit))
    assert bridge(package, tmp_path).path.read_bytes() == wheel


def test_python_bounds_in_any_order(tmp_path: Path) -> None:
    made = set()
    for number, bounds in enumerate((">=3.8,<4", "<4,>=3.8", ">=3.8 python <4")):
        specs = [f"python {bound.strip()}" for bound in bounds.split("python")]
        depends = [*specs, "pytorch 2.13.*", "libflashinfer 0.1.6 cpu_0"]
        metadata = factories.source_metadata(LABEL, **{"Requires-Python": "<4,>=3.8"})
        name = "site-packages/flashinfer-0.1.6+cputorch2.13.dist-info/METADATA"
        folder = tmp_path / str(number)
        write_pair(folder, files={name: metadata}, index={"depends": depends})
        made.add(bridge(folder / LABEL.conda_file, folder).path.read_bytes())
    assert len(made) == 1


def test_what_builders_leave_in_info_and_beside_the_payload(
    tmp_path: Path, reference: Path, wheel: bytes
) -> None:
    """The recipe, its tests in both builders' places, what pip and Python left."""
    site = "site-packages"
    extra = {
        "etc/conda/test-files/{name}/0/test_ops.py": b"test",
        "{site}/flashinfer/__pycache__/__init__.cpython-311.pyc": b"byte code",
        "{site}/flashinfer-0.1.6+cputorch2.13.dist-info/direct_url.json": b"{}",
        "{site}/flashinfer-0.1.6+cputorch2.13.dist-info/REQUESTED": b"",
    }
    info = {
        "info/files": b"x\n",
        "info/git": b"commit",
        "info/hash_input.json": b"{}",
        "info/recipe/meta.yaml": b"package:",
        "info/recipe/conda_build_config.yaml": b"",
        "info/test/run_test.sh": b"pip check",
        "info/tests/tests.yaml": b"[]",
    }

    def more(members: list[Member]) -> list[Member]:
        binding = any(header.name.startswith(site) for header, _ in members)
        name = "flashinfer" if binding else "libflashinfer"
        return members + [
            tar_file(path.format(name=name, site=site), data)
            for path, data in extra.items()
            if binding or path.startswith("etc/")
        ]

    def declared(document: dict[str, Any]) -> dict[str, Any]:
        binding = any(entry["_path"].startswith(site) for entry in document["paths"])
        name = "flashinfer" if binding else "libflashinfer"
        return {
            "paths": document["paths"]
            + [
                {
                    "_path": path.format(name=name, site=site),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size_in_bytes": len(data),
                }
                for path, data in extra.items()
                if binding or path.startswith("etc/")
            ]
        }

    package = packed_again(
        reference,
        tmp_path,
        payload=more,
        info=lambda members: [
            *edited(members, paths=declared),
            *(tar_file(name, data) for name, data in info.items()),
        ],
    )
    assert bridge(package, tmp_path).path.read_bytes() == wheel


def test_licences_in_any_order(tmp_path: Path) -> None:
    texts = {f"info/licenses/{name}": name.encode() for name in ("b/NOTICE", "LICENSE", "a.txt")}
    write_pair(tmp_path / "in", info=texts)
    made = bridge(tmp_path / "in" / LABEL.conda_file, tmp_path / "in" / "out")
    package = packed_again(tmp_path / "in", tmp_path, info=lambda members: members[::-1])
    again = bridge(package, tmp_path)
    assert again.sha256 == made.sha256


def test_a_dry_run_checks_the_metadata_too(tmp_path: Path) -> None:
    write_pair(tmp_path / "in")
    package = packed_again(
        tmp_path / "in",
        tmp_path,
        info=lambda members: edited(
            members, about=lambda about: {**about, "license": "none at all"}
        ),
    )
    for dry_run in (True, False):
        with pytest.raises(ArtifactError, match="not an SPDX licence"):
            bridge(package, tmp_path / "out", dry_run=dry_run)


# ------------------------------------------------------------ waiting for their turn


def reversed_pair(folder: Path, size: int) -> Path:
    """A pair whose libflashinfer has the large library first, which belongs last."""
    library = {"lib/libflashinfer.so": bytes(size)}
    factories.write_library(folder / "in", LABEL, files=library)
    factories.write_binding(folder / "in", LABEL)
    return packed_again(folder / "in", folder, payload=lambda members: members[::-1])


def test_memory_stays_small_for_a_large_member_that_waits(tmp_path: Path) -> None:
    package = reversed_pair(tmp_path, 100 << 20)
    tracemalloc.start()
    try:
        bridge(package, tmp_path / "out", threads=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


KILLED = """
import os, signal, sys
from pathlib import Path
from factories import bridge

def report(done, total):
    if done > 8 << 20:
        os.kill(os.getpid(), signal.SIGKILL)

bridge(Path(sys.argv[1]), Path(sys.argv[2]), report=report)
"""


def test_a_kill_leaves_nothing_of_what_waits(root: Path, tmp_path: Path) -> None:
    package, output = reversed_pair(tmp_path, 32 << 20), tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(package), str(output)],
        env={
            **os.environ,
            "PYTHONPATH": f"{root / 'scripts'}:{Path(__file__).parent}",
        },
    )
    assert done.returncode == -signal.SIGKILL
    [left] = output.iterdir()  # the wheel that was being written
    assert left.name.startswith(".partial-")
    assert left.name.endswith(LABEL.wheel_file)
    made = bridge(package, output)
    assert list(output.iterdir()) == [made.path]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, output = reversed_pair(tmp_path, 1 << 20), tmp_path / "out"

    def full(*_arguments: object, **_options: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        bridge(package, output)
    assert list(output.iterdir()) == []
