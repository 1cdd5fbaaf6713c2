"""Conda packages of wheels: every kind, what they require, and what is refused in words."""

from __future__ import annotations

import email
import json
import posixpath
import re
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path

import pytest
import toy_artifacts
from factories import said_in_full
from foreign_wheels import wheel
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from packaging.specifiers import SpecifierSet
from rattler import Version, VersionSpec

from conda_bridge.bridge.conda_layout import PLACEHOLDER
from conda_bridge.bridge.convert import bridge
from conda_bridge.bridge.dependencies import MatchSpec
from conda_bridge.bridge.to_conda import Converted, to_conda
from conda_bridge.config import Config, Dropped, parse
from conda_bridge.errors import (
    ArtifactError,
    BridgeError,
    ConfigError,
    ConflictError,
    LabelError,
    LabelMismatch,
)
from conda_bridge.formats import conda_package
from conda_bridge.formats.conda_package import CondaPackage
from conda_bridge.hooks import Hooks
from conda_bridge.project import Project
from flashinfer_build.label import Label as OurLabel
from flashinfer_build.label import Variant

FLASH = "2.8.3+cu12torch2.8cxx11abiTRUE"
LINUX = "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64"


def convert(path: Path, **options: object) -> tuple[CondaPackage, Converted]:
    done = to_conda(path, path.parent / "conda", level=1, **options)  # type: ignore[arg-type]
    return conda_package.read(done.path), done


def content(package: CondaPackage) -> dict[str, bytes]:
    return {member.path: member.read() for member in package.payload()}


def depends(path: Path, **options: object) -> list[str]:
    return list(convert(path, **options)[0].index["depends"])


@pytest.fixture(scope="module")
def shared_objects(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """Small libraries: one of C++'s old strings, one of its new ones, one with glibc alone."""
    folder = tmp_path_factory.mktemp("objects")
    made = {}
    for name, symbol in (("old", toy_artifacts.OLD_ABI), ("new", toy_artifacts.NEW_ABI)):
        made[name] = toy_artifacts.binding(symbols=(symbol,), needed=("libtorch_cpu.so",))
    made["gpu"] = toy_artifacts.library(gpu="zstd", soname="libtoy.so", info=False)
    source = folder / "plain.c"
    source.write_text("#include <string.h>\nsize_t toy(const char *s) { return strlen(s); }\n")
    plain = folder / "libplain.so"
    compiler = shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", plain, source], check=True)
    made["plain"] = plain.read_bytes()
    return made


# ---------------------------------------------------------------- every kind


def test_pure(tmp_path: Path) -> None:
    package, done = convert(
        wheel(
            tmp_path,
            {"toy/__init__.py": "x = 1\n", "{info}/licenses/LICENSE": "MIT\n"},
            metadata=[
                *("License-Expression: MIT", "Summary: A toy", "Requires-Python: >=3.9"),
                *(
                    "Project-URL: Source, https://toy.example/code",
                    "Home-page: https://toy.example",
                ),
            ],
            entry_points="[console_scripts]\ntoy = toy:main\n[gui_scripts]\ntoyw = toy.gui:run\n",
        )
    )
    assert package.stem == "toy-1.0-py_0"
    assert package.index["noarch"] == "python" and package.index["subdir"] == "noarch"
    assert package.index["depends"] == ["python >=3.9"]
    assert package.index["license"] == package.about["license"] == "MIT"
    assert package.about["dev_url"] == "https://toy.example/code"
    assert package.about["home"] == "https://toy.example" and package.about["summary"] == "A toy"
    assert package.licenses == {"LICENSE": b"MIT\n"}
    assert package.entry_points == ["toy = toy:main", "toyw = toy.gui:run"]
    files = content(package)
    assert files["site-packages/toy/__init__.py"] == b"x = 1\n"
    assert files["site-packages/toy-1.0.dist-info/INSTALLER"] == b"conda"
    assert done.remarks == () and done.packages[0].outcome == "written"


def test_for_one_python(tmp_path: Path, shared_objects: Mapping[str, bytes]) -> None:
    path = wheel(
        tmp_path,
        {"toy/_c.cpython-312-x86_64-linux-gnu.so": shared_objects["plain"]},
        tag=LINUX,
        build="2local",
        entry_points="[console_scripts]\ntoy = toy.cli:App.run\n",
    )
    package, _ = convert(path)
    assert package.stem == "toy-1.0-py312_2" and package.index["build_number"] == 2
    assert package.index["subdir"] == "linux-64" and "noarch" not in package.index
    floor, *others = package.index["depends"]
    assert re.fullmatch(r"__glibc >=2\.[\d.]+,<3\.0\.a0", floor)
    assert others == ["python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"]
    script = package.paths["bin/toy"]
    assert script.prefix_placeholder == PLACEHOLDER
    text = content(package)["bin/toy"].decode()
    assert text.startswith(f"#!{PLACEHOLDER}/bin/python\n")
    assert "from toy.cli import App\n" in text and "App.run()" in text
    compile(text, "toy", "exec")


def test_free_threaded(tmp_path: Path) -> None:
    package, _ = convert(wheel(tmp_path, {"t.py": ""}, tag="cp313-cp313t-linux_aarch64"))
    assert package.index["subdir"] == "linux-aarch64" and package.build == "py313t_0"
    assert "python_abi 3.13.* *_cp313t" in package.index["depends"]
    assert "lib/python3.13t/site-packages/t.py" in package.paths


def test_stable_abi(tmp_path: Path, shared_objects: Mapping[str, bytes]) -> None:
    path = wheel(
        tmp_path,
        {"toy/_c.abi3.so": shared_objects["plain"]},
        tag="cp310-abi3-linux_x86_64",
        metadata=["Requires-Python: >=3.8,!=3.8.1"],
    )
    package, _ = convert(path)
    assert package.build == "abi3_0" and package.index["noarch"] == "python"
    assert package.index["subdir"] == "linux-64"
    wanted = {"python >=3.10", "cpython >=3.10", "_python_abi3_support 1.*"}
    assert wanted < set(package.index["depends"])


def test_a_library_for_ctypes(tmp_path: Path, shared_objects: Mapping[str, bytes]) -> None:
    path = wheel(
        tmp_path,
        {"toy/libplain.so": shared_objects["plain"]},
        tag="py3-none-manylinux_2_17_x86_64",
    )
    package, _ = convert(path)
    assert (package.build, package.index["subdir"]) == ("py_0", "linux-64")
    assert package.index["noarch"] == "python" and "site-packages/toy/libplain.so" in package.paths


def test_the_local_version_names_builds_and_a_requirement(tmp_path: Path) -> None:
    """flash-attn's wheels: the file is renamed, METADATA has the public version."""
    path = wheel(
        tmp_path,
        {"flash_attn/__init__.py": ""},
        name="flash-attn",
        version="2.8.3",
        file_version=FLASH,
        tag="cp312-cp312-linux_x86_64",
        metadata=["Requires-Dist: torch", "Requires-Dist: einops"],
    )
    package, done = convert(path)
    assert package.stem == "flash-attn-2.8.3-py312_cu12torch2.8cxx11abiTRUE_0"
    assert {"pytorch", "pytorch 2.8.*", "einops"} < set(package.index["depends"])
    assert any("METADATA has 2.8.3" in remark for remark in done.remarks)
    assert package.about["extra"]["wheel"] == path.name


def test_a_label_names_it(tmp_path: Path) -> None:
    table = {
        "package": "toy",
        "label": {
            "build": "{cuda}_torch{torch:flat}_{number}",
            "local": "{cuda}torch{torch}",
            "rank": "cuda",
            "fields": {
                "cuda": {"form": "cu{major:2}{minor}", "none": "cpu"},
                "torch": {"form": "{major:1}.{minor}", "depends": "pytorch"},
            },
        },
    }
    project = Project.of(parse(table, "table"))
    path = wheel(tmp_path, {"toy.py": ""}, version="1.0rc1+cu124torch2.4", build="3")
    package, _ = convert(path, project=project)
    assert package.stem == "toy-1.0.rc1-cu124_torch24_3"
    assert package.index["build_number"] == 1204003
    assert "pytorch 2.4.*" in package.index["depends"]
    with pytest.raises(LabelError, match="not a label of this project"):
        to_conda(wheel(tmp_path, {}, version="1.0+cu124"), tmp_path, project=project)
    with pytest.raises(LabelError, match="not a package of this project"):
        to_conda(wheel(tmp_path, {}, name="other"), tmp_path, project=project)


# ---------------------------------------------------------------- files


FILES = {
    "toy/__init__.py": b"def main(): pass\n",
    "toy/data.bin": bytes(range(256)),
    "toy.libs/libx.so.1": b"no object\n",
    "{data}/purelib/pure.py": b"p = 1\n",
    "{data}/platlib/plat.py": b"p = 2\n",
    "{data}/scripts/tool": b"#!python\nprint(1)\n",
    "{data}/scripts/tool.sh": b"#!/bin/sh\necho 1\n",
    "{data}/scripts/binary": b"\x00\x01",
    "{data}/data/share/toy/x.txt": b"x",
    "{data}/data/etc/toy/run": b"y",
    "{info}/licenses/sub/COPYING": b"text",
}


@pytest.mark.parametrize("tag", ["py3-none-any", LINUX])
def test_conda_installs_what_pip_installs(tmp_path: Path, tag: str) -> None:
    files = dict(FILES)
    if tag == LINUX:
        files["{data}/headers/toy.h"] = b"// h\n"
    path = wheel(
        tmp_path,
        files,
        tag=tag,
        executables=[
            "{data}/data/etc/toy/run",
            "toy/data.bin",
            *(p for p in files if "scripts" in p),
        ],
        entry_points="[console_scripts]\nmain = toy:main\n",
    )
    package, _ = convert(path)
    by_pip, by_conda = tmp_path / "pip", tmp_path / "env"
    schemes = {"purelib": "lib/python3.12/site-packages", "platlib": "lib/python3.12/site-packages"}
    schemes |= {"scripts": "bin", "data": ".", "headers": "include/python3.12/toy"}
    with WheelFile.open(path) as source:
        destination = SchemeDictionaryDestination(
            {name: str(by_pip / folder) for name, folder in schemes.items()},
            interpreter=f"{by_conda}/bin/python",
            script_kind="posix",
        )
        install(source, destination, {"INSTALLER": b"conda"})
    _install(package, by_conda)
    found, expected = _tree(by_conda), _tree(by_pip)
    own = "lib/python3.12/site-packages/toy-1.0.dist-info/RECORD"
    # An entry point's script is the installer's own; RECORD has the same files.
    assert found.pop("bin/main")[1] and expected.pop("bin/main")[1]
    rows, others = (
        {posixpath.normpath(line.split(",")[0]) for line in tree.pop(own)[0].decode().split()}
        for tree in (found, expected)
    )
    assert found == expected and rows == others
    assert by_conda.joinpath("bin/tool").read_text().startswith(f"#!{by_conda}/bin/python\n")


def _install(package: CondaPackage, prefix: Path) -> None:
    """What conda does with a package for Python 3.12."""
    for member in package.payload():
        path, data = member.path, member.read()
        entry = package.paths[member.path]
        if package.index.get("noarch") == "python":
            path = re.sub("^site-packages/", "lib/python3.12/site-packages/", path)
            path = re.sub("^python-scripts/", "bin/", path)
        if entry.prefix_placeholder:
            data = data.replace(entry.prefix_placeholder.encode(), str(prefix).encode())
        target = prefix / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if member.executable else 0o644)
    for command in package.entry_points:
        target = prefix / "bin" / command.split(" = ")[0]
        target.write_text("#!made by conda\n")
        target.chmod(0o755)


def _tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & 0o111))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_byte_code_and_signatures_stay_behind(tmp_path: Path) -> None:
    files = {
        "toy/__pycache__/a.cpython-312.pyc": b"1",
        "toy/b.pyc": b"2",
        "{info}/RECORD.jws": b"3",
    }
    package, _ = convert(wheel(tmp_path, files, record={"{info}/RECORD.jws": None}))
    assert "site-packages/toy/b.pyc" in package.paths
    assert not [path for path in package.paths if "__pycache__" in path or path.endswith(".jws")]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("{data}/data/info/index.json", "where conda keeps its own"),
        ("{data}/data/conda-meta/history", "where conda keeps its own"),
        ("{data}/data/site-packages/evil.py", "where conda keeps its own"),
        ("{data}/data/lib/python3.12/site-packages/toy.py", "by a package for every Python"),
        ("{data}/other/x", "of no kind that can be installed"),
        ("{data}/scripts/../../x", "leaves the package"),
    ],
)
def test_files_that_have_no_place(tmp_path: Path, path: str, what: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(what)):
        to_conda(wheel(tmp_path, {path: b""}), tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


# ---------------------------------------------------------------- requirements


@pytest.mark.parametrize(
    ("tag", "required", "found"),
    [
        ("py3-none-any", "torch>=2.1,<3", {"pytorch >=2.1,<3dev0"}),
        ("py3-none-any", "numpy; extra == 'x'", set()),
        ("py3-none-any", "PyYAML; sys_platform != 'nonsense'", {"pyyaml"}),
        ("py3-none-any", "colorama; sys_platform == 'win32'", {"__linux"}),
        ("py3-none-any", "tomli>=1; python_version < '3.11'", {"tomli >=1"}),
        ("cp312-cp312-linux_x86_64", "tomli; python_version < '3.11'", set()),
        ("cp312-cp312-linux_x86_64", "idna; platform_machine == 'x86_64'", {"idna"}),
        ("cp312-cp312-linux_aarch64", "idna; platform_machine == 'x86_64'", set()),
        ("cp312-cp312-linux_x86_64", "cffi; platform_python_implementation == 'PyPy'", set()),
        ("py3-none-any", "nvidia-cublas-cu12==12.8.4.1", {"libcublas ==12.8.4.1"}),
        ("py3-none-any", "torch==2.8.0+cu128", {"pytorch ==2.8.0"}),
    ],
)
def test_requirements(tmp_path: Path, tag: str, required: str, found: set[str]) -> None:
    path = wheel(
        tmp_path, {}, tag=tag, metadata=["Requires-Python: >=3.9", f"Requires-Dist: {required}"]
    )
    listed = depends(path)
    assert {text for text in listed if not text.startswith("python")} == found


def test_what_was_folded_in_comes_out_by_its_places(tmp_path: Path) -> None:
    """The longest place counts, of any package, and "drop" is none."""
    one = {"lib/": "toy/lib/", "include/": "drop", "etc/x": "toy/x", "share/": ".data/data/share/"}
    fold = ({"package": "one", "files": one}, {"package": "two", "files": {"lib/": "toy/lib/b/"}})
    paths = ("toy/lib/a", "toy/lib/b/c", "toy/x", "toy/xy", "dropped/d", "{data}/data/share/e")
    project = Project.of(parse({"fold": list(fold)}, "test"))
    done = to_conda(wheel(tmp_path, dict.fromkeys(paths, "1")), tmp_path / "out", project=project)
    main, first, second = (conda_package.read(package.path) for package in done.packages)
    assert (main.name, {*first.paths}) == ("toy", {"lib/a", "etc/x", "share/e"})
    assert {*second.paths} == {"lib/c"}
    assert {path for path in main.paths if "dist-info" not in path} == {
        "site-packages/toy/xy",
        "site-packages/dropped/d",
    }


@pytest.mark.parametrize(
    ("places", "what"), [(("toy/", "toy/"), "both have files in 'toy/'"), (("", "x/"), "its root")]
)
def test_packages_in_one_place_cannot_come_out(
    tmp_path: Path, places: tuple[str, str], what: str
) -> None:
    names = ("one", "two")
    fold = [
        {"package": name, "files": {"lib/": place}}
        for name, place in zip(names, places, strict=True)
    ]
    project = Project.of(parse({"fold": fold}, "test"))
    with pytest.raises(ConfigError, match=what):
        to_conda(wheel(tmp_path, {"toy/x": "1"}), tmp_path / "out", project=project)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("tag", ["py3-none-any", LINUX])
@pytest.mark.parametrize(
    ("paths", "place"),
    [
        (("toy/x.py", "{data}/purelib/toy/x.py"), "site-packages/toy/x.py"),
        (("{data}/platlib/toy/x.py", "{data}/purelib/toy/x.py"), "site-packages/toy/x.py"),
        (("{data}/scripts/run", "{data}/data/bin/run"), "bin/run"),
        (("{data}/data/bin/toy", "toy.py"), "bin/toy"),
    ],
)
def test_two_files_in_one_place(
    tmp_path: Path, paths: tuple[str, str], place: str, tag: str, dry_run: bool
) -> None:
    points = "[console_scripts]\ntoy = toy:main\n"
    path = wheel(tmp_path, dict.fromkeys(paths, "1"), tag=tag, entry_points=points)
    with pytest.raises(ArtifactError, match=rf"would be installed as \S*{place}, where"):
        to_conda(path, tmp_path / "out", dry_run=dry_run)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("tag", "site", "scripts"),
    [
        ("py3-none-any", "site-packages/", "python-scripts/"),
        (LINUX, "lib/python3.12/site-packages/", "bin/"),
    ],
)
def test_the_script_of_an_entry_point_is_the_installers(
    tmp_path: Path, tag: str, site: str, scripts: str
) -> None:
    files = {
        "toy.py": "",
        "{data}/scripts/toy": "#!python\nold",
        "{data}/scripts/other": "#!python",
    }
    points = "[console_scripts]\ntoy = toy:main\n"
    package, done = convert(wheel(tmp_path, files, tag=tag, entry_points=points))
    inside = content(package)
    assert f"{scripts}other" in inside
    assert b"old" not in inside.get("bin/toy", b"")
    assert (f"{scripts}toy" in inside) == (scripts == "bin/")
    assert any("toy-1.0.data/scripts/toy is not in the package" in note for note in done.remarks)
    record = inside[f"{site}toy-1.0.dist-info/RECORD"].decode()
    assert len(re.findall(r"bin/toy,", record)) == 1


@pytest.mark.parametrize("tag", ["py3-none-any", "py2.py3-none-any", "cp312-cp312-linux_x86_64"])
@pytest.mark.parametrize(
    "said",
    [
        *("!=3.0.*,!=3.1.*,>=2.7", ">3.6", ">3.7.0,<3.13", ">=3.7rc1", ">=3.10.0a1", "~=3.7"),
        *("==3.*", "!=3.9.7,>=3.8", ">3.12.1", ">=3.0,!=3.0.*", "<3.13"),
    ],
)
def test_pythons_there_and_back(tmp_path: Path, tag: str, said: str) -> None:
    path = wheel(tmp_path, {"toy.py": ""}, tag=tag, metadata=[f"Requires-Python: {said}"])
    package, done = convert(path)
    asked = map(MatchSpec.parse, package.index["depends"], repeat("a package"))
    bounds = [VersionSpec(spec.version) for spec in asked if spec.name == "python"]
    back = bridge(done.path, tmp_path / "back").path
    with zipfile.ZipFile(back) as archive:
        head = email.message_from_bytes(archive.read("toy-1.0.dist-info/METADATA"))
    for python in (f"3.{minor}.{patch}" for minor in range(20) for patch in (0, 1, 2, 7)):
        right = python in SpecifierSet(said)
        assert (python in SpecifierSet(head["Requires-Python"])) == right, python
        here = right and (not tag.startswith("cp312") or python.startswith("3.12."))
        assert all(one.matches(Version(python)) for one in bounds) == here, python


def test_what_is_decided_is_said(tmp_path: Path) -> None:
    lines = ["tomli; python_version < '3.11'", "Some_Thing[fast]", "numpy; extra == 'all'"]
    _, done = convert(wheel(tmp_path, {}, metadata=[f"Requires-Dist: {one}" for one in lines]))
    text = "\n".join(done.remarks)
    assert "conda has no markers" in text
    assert "'some-thing' is taken to have the same name" in text and "[fast]" in text
    assert list(done.dropped) == ['numpy; extra == "all"']
    assert json.dumps(done.as_dict())


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["toy2 @ https://toy.example/toy2.whl"], "by its address"),
        (["???"], "is no requirement"),
        (["pixman"], "something else under that name"),
        (
            ["numpy<2; python_version < '3.12'", "numpy>=2; python_version >= '3.12'"],
            "no version of numpy is both",
        ),
    ],
)
def test_requirements_that_conda_cannot_have(tmp_path: Path, lines: list[str], what: str) -> None:
    path = wheel(tmp_path, {}, metadata=[f"Requires-Dist: {one}" for one in lines])
    with pytest.raises(ArtifactError, match=re.escape(what)) as caught:
        to_conda(path, tmp_path / "out")
    assert caught.value.where.startswith(path.name)


def test_names_of_the_user_and_of_the_configuration(tmp_path: Path) -> None:
    path = wheel(tmp_path, {}, name="zlib", metadata=["Requires-Dist: pixman"])
    config = Config(dependencies={"pypixman": "pixman", "cuttle": Dropped("none")})
    with pytest.raises(LabelError, match="something else under the name 'zlib'"):
        to_conda(path, tmp_path / "out", project=Project(config=config))
    package, _ = convert(path, project=Project(config=config), mapping={"python-zlib": "zlib"})
    assert package.name == "python-zlib" and "pypixman" in package.index["depends"]


# ---------------------------------------------------------------- binaries


def test_gpu_code_needs_a_driver(tmp_path: Path, shared_objects: Mapping[str, bytes]) -> None:
    files = {"toy/libtoy.so": shared_objects["gpu"]}
    tag = "py3-none-linux_x86_64"
    package, _ = convert(wheel(tmp_path, files, version="1.0+cu124", tag=tag))
    assert "__cuda >=12" in package.index["depends"]
    assert package.index["constrains"] == ["cuda-version >=12,<13"]
    package, done = convert(wheel(tmp_path, files, version="1.1", tag=tag))
    assert "__cuda" in package.index["depends"] and "any driver" in done.remarks[0]


def test_old_strings_have_no_place_in_conda_forge(
    tmp_path: Path, shared_objects: Mapping[str, bytes]
) -> None:
    tag = "cp38-abi3-linux_x86_64"
    metadata = ["Requires-Dist: torch"]
    old = wheel(tmp_path, {"toy/_C.abi3.so": shared_objects["old"]}, tag=tag, metadata=metadata)
    with pytest.raises(LabelMismatch, match="the old kind of C\\+\\+ strings") as caught:
        to_conda(old, tmp_path / "out")
    assert caught.value.where.endswith("toy/_C.abi3.so") and caught.value.exit_code == 1
    new = wheel(tmp_path, {"toy/_C.abi3.so": shared_objects["new"]}, tag=tag, metadata=metadata)
    _, done = convert(new)
    assert done.remarks == (
        "is linked to libraries of pytorch, and requires any pytorch: the wheel does not say which "
        "one it was built with",
    )


def test_a_library_that_nothing_brings_is_said(
    tmp_path: Path, shared_objects: Mapping[str, bytes]
) -> None:
    path = wheel(tmp_path, {"toy/_C.abi3.so": shared_objects["new"]}, tag="cp38-abi3-linux_x86_64")
    _, done = convert(path)
    assert any("needs libtorch_cpu.so" in remark for remark in done.remarks)


def test_a_binary_for_another_machine_is_said(
    tmp_path: Path, shared_objects: Mapping[str, bytes]
) -> None:
    path = wheel(tmp_path, {"a.so": shared_objects["plain"]}, tag="py3-none-linux_aarch64")
    _, done = convert(path)
    assert done.remarks == ("a.so is for x86_64, the package for linux-aarch64",)


def test_a_damaged_library_is_refused(tmp_path: Path, shared_objects: Mapping[str, bytes]) -> None:
    path = wheel(tmp_path, {"a.so": shared_objects["plain"][:4000]}, tag="py3-none-linux_x86_64")
    with pytest.raises(ArtifactError):
        to_conda(path, tmp_path / "out")


def test_our_own_wheel_for_another_abi_is_refused_by_what_it_says(
    tmp_path: Path, root: Path
) -> None:
    """PyPI's torch had the old strings up to 2.6; conda-forge's pytorch of that minor has not."""
    project = Project.load(root / "pyproject.toml")
    old = toy_artifacts.write_wheel(tmp_path, OurLabel(Variant(None, (2, 4)), "0.1.6"))
    with pytest.raises(LabelMismatch, match="old C\\+\\+ string ABI") as caught:
        to_conda(old, tmp_path / "out", project=project)
    assert caught.value.where.endswith("_build_info.py")
    new = toy_artifacts.write_wheel(tmp_path, OurLabel(Variant((12, 8), (2, 8)), "0.1.6"))
    package, done = convert(new, project=project)
    assert [made.path.name for made in done.packages] == [
        "flashinfer-0.1.6-cu128_torch28_0.conda",
        "libflashinfer-0.1.6-cu128_0.conda",
    ]
    wanted = {"libflashinfer 0.1.6 cu128_0", "pytorch 2.8.* *cuda*", "__cuda >=12"}
    assert wanted < set(package.index["depends"])
    library = conda_package.read(done.packages[1].path)
    assert set(library.paths) == {
        "lib/libflashinfer.so",
        "include/flashinfer/api.h",
        "share/libflashinfer/sboms/libflashinfer.cdx.json",
    }


# ---------------------------------------------------------------- what a wheel says of itself


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"record": {"toy.py": ("sha256=" + "A" * 43, "1")}}, "as RECORD has it"),
        ({"record": {"toy.py": None}}, "is not in RECORD"),
        ({"record": {"toy.py": ("", "")}}, "has no sha256"),
        ({"record": {"gone.py": ("sha256=" + "A" * 43, "1")}}, "that are not there"),
        ({"file_version": "1.1"}, "Version is '1.0'"),
        ({"file_version": "1.0.1+cpu"}, "Version is '1.0'"),
        ({"tag": "cp312-cp312-win_amd64"}, "Windows"),
        ({"tag": "cp312-cp312-macosx_11_0_arm64"}, "macOS"),
        ({"tag": "cp312-cp312-musllinux_1_2_x86_64"}, "musl"),
        ({"tag": "cp312-cp312-linux_riscv64"}, "is for linux_riscv64"),
        ({"tag": "py2-none-any"}, "is for py2"),
        ({"tag": "pp310-pypy310_pp73-linux_x86_64"}, "is for pp310"),
        ({"tag": "cp312.cp313-none-linux_x86_64"}, "one Python"),
        ({"tag": "cp312-abi3-any"}, "no platform"),
        ({"metadata": ["Requires-Python: <3"]}, "Requires-Python is '<3'"),
        ({"metadata": ["Requires-Python: spam"]}, "no version specifier"),
        ({"entry_points": "[console_scripts]\n../x = a:b\n"}, "the command '../x'"),
        ({"entry_points": "[console_scripts]\nx = a\n"}, "the command 'x' is 'a'"),
        ({"entry_points": "spam"}, "cannot be read"),
    ],
)
def test_refused_in_words(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    path = wheel(tmp_path, {"toy.py": "x = 1\n"}, **changes)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=re.escape(what)) as caught:
        to_conda(path, tmp_path / "out")
    assert what in said_in_full(caught.value, path)
    assert not list(tmp_path.glob("out/*"))


def test_a_damaged_wheel_gives_no_other_package(tmp_path: Path) -> None:
    """Whatever byte is flipped: the wheel is refused, or no byte of the payload has changed."""
    path = wheel(tmp_path, {"toy.py": "x = 1\n" * 40, "{data}/scripts/s": "#!python\n"})
    whole = content(conda_package.read(to_conda(path, tmp_path / "whole", level=1).path))
    data = path.read_bytes()
    refused = 0
    for position in range(0, len(data), 17):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        out = tmp_path / str(position)
        try:
            found = to_conda(path, out, level=1, threads=1).path
        except BridgeError:
            refused += 1
            assert not list(out.glob("*"))
            continue
        assert content(conda_package.read(found)) == whole
    assert refused > len(data) // 17 // 2


# ---------------------------------------------------------------- writing


def test_the_same_bytes_whatever_the_order_and_the_threads(tmp_path: Path) -> None:
    one = wheel(tmp_path / "a", dict(FILES))
    other = wheel(tmp_path / "b", dict(reversed(FILES.items())))
    packages = [
        to_conda(path, path.parent, threads=threads).path.read_bytes()
        for path, threads in ((one, 1), (other, 2))
    ]
    assert packages[0] == packages[1]


def test_nothing_published_is_replaced(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"toy.py": "x = 1\n"})
    first = to_conda(path, tmp_path / "out", level=1)
    assert to_conda(path, tmp_path / "out", level=1).packages[0].outcome == "unchanged"
    before = first.path.read_bytes()
    path = wheel(tmp_path, {"toy.py": "x = 2\n"})
    with pytest.raises(ConflictError, match="with other bytes"):
        to_conda(path, tmp_path / "out", level=1)
    assert first.path.read_bytes() == before
    assert to_conda(path, tmp_path / "out", level=1, overwrite=True).packages[0].sha256
    assert first.path.read_bytes() != before
    assert [found.name for found in (tmp_path / "out").iterdir()] == [first.path.name]


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"toy.py": "x = 1\n"}, metadata=["Requires-Dist: numpy"])
    done = to_conda(path, tmp_path / "out", dry_run=True)
    assert done.packages[0].outcome == "checked" and "numpy" in done.packages[0].depends
    assert not (tmp_path / "out").exists()
    wrong = wheel(tmp_path, {"toy.py": "x"}, record={"toy.py": ("sha256=" + "A" * 43, "1")})
    with pytest.raises(ArtifactError):
        to_conda(wrong, tmp_path / "out", dry_run=True)


def test_hooks_see_the_wheel_and_add_dependencies(tmp_path: Path) -> None:
    seen = []

    class Own(Hooks):
        def looks_into(self):
            return ("toy.py",)

        def check_wheel(self, wheel, label, contents):
            seen.append((wheel.name, label.version, dict(contents)))

        def conda_depends(self, label):
            return ["numpy 2.* *cuda*"]

    path = wheel(tmp_path, {"toy.py": "x = 1\n"}, metadata=["Requires-Dist: numpy"])
    package, _ = convert(path, project=Project(hooks=Own()))
    assert seen == [("toy", "1.0", {"toy.py": b"x = 1\n"})]
    assert package.index["depends"] == ["numpy 2.* *cuda*", "python >=3"]
