"""What no wheel can hold or promise is refused, with the member, the reason and the way out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from factories import said_in_full
from foreign import PREFIX, SITE, compiled, library, metadata, module, package, project

from conda_bridge.bridge.convert import bridge
from conda_bridge.errors import ArtifactError, BridgeError, ConfigError, LabelError, LabelMismatch

PURE = {"site-packages/demo/__init__.py": ""}
ARCH = {f"{SITE}demo/__init__.py": ""}


def refused(
    path: Path, kind: type[BridgeError] = ArtifactError, table: dict[str, Any] | None = None
) -> str:
    """The message with which a package is refused; nothing is left behind."""
    output = path.parent / "out"
    for dry_run in (True, False):
        with pytest.raises(kind) as caught:
            bridge(path, output, project=project(**(table or {})), dry_run=dry_run)
        assert not output.exists() or list(output.iterdir()) == []
    return said_in_full(caught.value, path)


def pure(folder: Path, **options: Any) -> Path:
    """A package for every Python."""
    files = {**PURE, **options.pop("files", {})}
    return package(folder, files=files, noarch="python", subdir="noarch", **options)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("bin/.demo-post-link.sh", "a script that conda runs when the package is installed"),
        ("bin/.demo-pre-unlink.sh", "a script that conda runs when the package is installed"),
        ("etc/conda/activate.d/demo.sh", "when an environment is activated"),
        ("etc/conda/deactivate.d/demo.sh", "when an environment is left"),
        ("etc/conda/env_vars.d/demo.json", "variables that conda sets"),
        ("Menu/demo.json", "an entry of a menu"),
        ("conda-meta/history", "conda's own record"),
        ("ssl/cacert.pem", "cannot go into a wheel"),
        ("Library/bin/demo.dll", "cannot go into a wheel"),
        ("bin/folder/demo", "cannot go into a wheel"),
        ("readme.txt", "cannot go into a wheel"),
    ],
)
def test_files_that_a_wheel_has_no_place_for(tmp_path: Path, path: str, reason: str) -> None:
    made = pure(tmp_path, files={path: "text"})
    message = refused(made)
    assert f"{made.name}: {path}: " in message
    assert reason in message
    folder = path.rpartition("/")[0]
    # a script of bin is alone; other programs there stay
    key = f"{folder}/" if folder not in ("", "bin") else path
    assert f'"{key}" = "drop"' in message
    place = re.search(r'"([^"]+)" = "<package>/([^"]*)"', message)
    assert place is not None
    project(files={place[1]: f"demo/{place[2]}"})
    # and the way out is one
    table = {"files": {key: "drop"}, "wheel-name": "demo"}
    assert bridge(made, tmp_path / "out", project=project(**table)).outcome == "written"


def test_a_file_may_be_given_a_place(tmp_path: Path) -> None:
    made = pure(tmp_path, files={"ssl/cacert.pem": "text", "ssl/more/x": ""})
    table = {"files": {"ssl/": "demo/ssl/", "ssl/more/": ".data/data/share/ssl/"}}
    result = bridge(made, tmp_path, project=project(**table))
    assert set(result.payload) == {
        "demo/__init__.py",
        "demo/ssl/cacert.pem",
        "demo-1.2.0.data/data/share/ssl/x",
    }


@pytest.mark.parametrize(
    ("path", "content", "mode"),
    [
        ("site-packages/demo/config.py", f"HOME = '{PREFIX}/share'\n", "text"),
        ("site-packages/demo/tool.py", f"#!{PREFIX}/bin/python\nHOME = '{PREFIX}'\n", "text"),
        ("site-packages/demo/tool.pl", f"#!{PREFIX}/bin/perl\n", "text"),
        ("python-scripts/demo", f"#!{PREFIX}/bin/python\nHOME = '{PREFIX}'\n", "text"),
        ("bin/demo.sh", f"#!{PREFIX}/bin/sh\n", "text"),
        ("share/demo/demo.dat", f"\0{PREFIX}\0", "binary"),
        ("lib/pkgconfig/demo.pc", f"prefix={PREFIX}\n", "text"),
    ],
)
def test_the_build_prefix(tmp_path: Path, path: str, content: str, mode: str) -> None:
    made = pure(tmp_path, files={path: content}, prefixes={path: mode})
    message = refused(made)
    assert f"{made.name}: {path}: holds the build prefix" in message
    table = {"files": {path: "drop"}}
    assert bridge(made, tmp_path / "out", project=project(**table)).outcome == "written"


def test_a_binary_with_the_build_prefix(tmp_path: Path) -> None:
    path = f"{SITE}demo/libdemo.so"
    source = f'const char home[] = "{PREFIX}";\n'
    made = package(
        tmp_path,
        files={**ARCH, path: compiled(source, soname="libdemo.so")},
        prefixes={path: "binary"},
    )
    assert f"{path}: holds the build prefix" in refused(made)


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ({"share/a": "b"}, "a link to what is not in the package: share/b"),
        ({"share/a": "../site-packages/demo"}, "a link to the folder site-packages/demo"),
        ({"share/a": "b", "share/b": "a"}, "a link that leads to itself"),
    ],
)
def test_links_that_lead_to_no_file(tmp_path: Path, links: dict[str, str], reason: str) -> None:
    assert reason in refused(pure(tmp_path, links=links))


def test_site_packages_of_the_other_kind(tmp_path: Path) -> None:
    assert "noarch: python" in refused(package(tmp_path, files=PURE))
    made = package(tmp_path / "b", files=ARCH, noarch="python", subdir="noarch")
    assert "is below lib/python3.12/site-packages/" in refused(made)
    two = {**ARCH, "lib/python3.11/site-packages/demo/__init__.py": ""}
    assert "Python 3.11 and 3.12" in refused(package(tmp_path / "c", files=two))


def test_a_package_without_python(tmp_path: Path) -> None:
    made = package(tmp_path, depends=(), files={"lib/libdemo.so": library("libdemo.so")})
    message = refused(made)
    assert "no Python package" in message
    assert "[[tool.conda-bridge.fold]]" in message


@pytest.mark.parametrize("subdir", ["win-64", "osx-arm64", "linux-32"])
def test_other_systems(tmp_path: Path, subdir: str) -> None:
    made = package(tmp_path, files=ARCH, subdir=subdir)
    assert f"subdir is {subdir!r}" in refused(made)


def test_metadata_of_two_projects(tmp_path: Path) -> None:
    own = {f"site-packages/{name}-1.dist-info/METADATA": metadata(name, "1") for name in ("a", "b")}
    message = refused(pure(tmp_path, files=own))
    assert "has metadata of 2 projects: a-1.dist-info, b-1.dist-info" in message


@pytest.mark.parametrize("version", ["2024a", "1_2", "1.0.h3"])
def test_a_version_that_pip_has_no_form_for(tmp_path: Path, version: str) -> None:
    assert repr(version) in refused(pure(tmp_path, version=version), LabelError)


def test_a_file_twice_in_the_wheel(tmp_path: Path) -> None:
    made = pure(tmp_path, files={"share/demo/__init__.py": ""})
    table = {"files": {"share/demo/": "demo/"}}
    assert "a second member" in refused(made, table=table)


# ---------------------------------------------------------------- dependencies


@pytest.mark.parametrize(
    ("depends", "reason"),
    [
        ("foo-tool >=1", "depends on 'foo-tool'"),
        ("numpy 1.26.*|2.1.*", "pip has no form for the version"),
        ("numpy >=1,(<2|>3)", "pip has no form for the version"),
        ("numpy 1.26.4 h_0", "depends on the build 'h_0' of numpy"),
        ("numpy * *mkl*", "depends on the build '*mkl*' of numpy"),
        ("python-tzdata >=2024a", "pip has no form for the version"),
        ("conda-forge::numpy 1.*", "asks for a channel"),
        ("numpy[build_number=3]", "asks for a build number"),
        ("numpy >=1 2 3 4", "is no dependency"),
    ],
)
def test_dependencies_that_pip_cannot_have(tmp_path: Path, depends: str, reason: str) -> None:
    made = pure(tmp_path, depends=("python >=3.8", depends))
    message = refused(made)
    assert "info/index.json: depends" in message
    assert reason in message


@pytest.mark.parametrize(
    ("depends", "said", "requirement"),
    [
        ("foo-tool >=1", "foo", "foo>=1"),
        ("python-tzdata >=2024a", "tzdata>=2024.1", "tzdata>=2024.1"),
        ("numpy * *mkl*", "numpy>=1", "numpy>=1"),
        ("foo-tool >=1", {"drop": "not needed"}, None),
    ],
)
def test_the_way_out_of_a_dependency(
    tmp_path: Path, depends: str, said: Any, requirement: str | None
) -> None:
    made = pure(tmp_path, depends=("python >=3.8", depends))
    table = {"dependencies": {depends.split(maxsplit=1)[0]: said}}
    result = bridge(made, tmp_path, project=project(**table))
    assert requirement_lines(result.path) == ([requirement] if requirement else [])


def test_a_mapping_has_the_first_word(tmp_path: Path) -> None:
    made = pure(tmp_path, depends=("python >=3.8", "foo-tool >=1", "numpy"))
    result = bridge(made, tmp_path, mapping={"foo-tool": "foo", "numpy": None})
    assert requirement_lines(result.path) == ["foo>=1"]


def requirement_lines(wheel: Path) -> list[str]:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist")]


# ---------------------------------------------------------------- binaries


NEEDY = module("_one", calls="answer", needs=(("libfoo.so.1", library("libfoo.so.1")),))


def test_a_library_that_nobody_brings(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        depends=("python >=3.8", "libfoo >=1.3"),
        files={f"{SITE}demo/_one.abi3.so": NEEDY},
    )
    for platform in ("auto", "linux_x86_64"):
        message = refused(made, table={"platform-tag": platform})
        assert f"{SITE}demo/_one.abi3.so: needs libfoo.so.1" in message
        assert "perhaps one of libfoo" in message
        assert 'provided-by] <name on PyPI> = ["libfoo.so.1"]' in message


@pytest.mark.parametrize(
    "table",
    [
        {"dependencies": {"libfoo": "foo-binaries"}, "provided-by": {"foo-binaries": ["libfoo.*"]}},
        {"dependencies": {"libfoo": {"drop": "the system"}}, "platform-tag": "linux_x86_64"},
        {"fold": [{"package": "libfoo"}]},
    ],
    ids=["provided", "the system's", "folded"],
)
def test_the_way_out_of_a_library(tmp_path: Path, table: dict[str, Any]) -> None:
    made = package(
        tmp_path,
        depends=("python >=3.8", "libfoo >=1.3"),
        files={f"{SITE}demo/_one.abi3.so": NEEDY},
    )
    package(
        tmp_path,
        "libfoo",
        "1.3.1",
        depends=(),
        files={"lib/libfoo.so.1": library("libfoo.so.1")},
    )
    assert bridge(made, tmp_path, project=project(**table)).outcome == "written"


@pytest.mark.parametrize(
    ("wants", "reason"),
    [
        ("PyUnicode_AsUTF8AndSize", "needs Python 3.10 (PyUnicode_AsUTF8AndSize)"),
        ("_PyObject_GC_New_Own", "uses _PyObject_GC_New_Own, not in the stable ABI"),
        ("PyObject_CallOneArg", "uses PyObject_CallOneArg, not in the stable ABI"),
    ],
)
def test_a_module_that_breaks_its_promise(tmp_path: Path, wants: str, reason: str) -> None:
    path = "site-packages/demo/_one.abi3.so"
    made = package(
        tmp_path,
        noarch="python",
        files={**PURE, path: module("_one", python=(wants,))},
        depends=("python >=3.9",),
    )
    message = refused(made, LabelMismatch)
    assert f"{path}: {reason}" in message
    assert "cp39-abi3" in message


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("_one.cpython-311-x86_64-linux-gnu.so",), "modules for cp311"),
        (
            ("_one.cpython-312-x86_64-linux-gnu.so", "_two.cpython-313-x86_64-linux-gnu.so"),
            "modules for cp312 and cp313",
        ),
        (("_one.pypy39-pp73-x86_64-linux-gnu.so",), "another interpreter"),
    ],
)
def test_modules_of_other_pythons(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    files = {f"{SITE}demo/{name}": module(name.partition(".")[0]) for name in names}
    assert reason in refused(package(tmp_path, files={**ARCH, **files}))


@pytest.mark.parametrize("asked", ["python 3.11.*", "python >=3.13", "python <3.12"])
def test_site_packages_of_another_python_than_asked_for(tmp_path: Path, asked: str) -> None:
    message = refused(package(tmp_path, files=ARCH, depends=(asked,)))
    assert "expected: python 3.12.*, whose site-packages the package has" in message


def test_a_linkers_script(tmp_path: Path) -> None:
    files = {f"{SITE}demo/libdemo.so": "INPUT(libdemo.so.1)\n"}
    message = refused(package(tmp_path, files={**ARCH, **files}))
    assert f"{SITE}demo/libdemo.so: is called as a shared object is" in message


def test_a_binary_of_another_processor(tmp_path: Path) -> None:
    files = {f"{SITE}demo/libdemo.so": library("libdemo.so")}
    made = package(tmp_path, files={**ARCH, **files}, subdir="linux-aarch64")
    message = refused(made)
    assert "is a binary for EM_X86_64" in message
    assert "EM_AARCH64" in message


def test_a_program_with_the_name_of_an_entry_point(tmp_path: Path) -> None:
    program = compiled("int main(void) { return 0; }", program=True)
    own = f"{SITE}demo-1.2.0.dist-info/"
    files = {
        f"{own}METADATA": metadata("demo", "1.2.0"),
        f"{own}entry_points.txt": "[console_scripts]\ndemo = demo:main\n",
        "bin/demo": program,
    }
    assert "the name of an entry point" in refused(package(tmp_path, files={**ARCH, **files}))


# ---------------------------------------------------------------- packages folded in


@pytest.mark.parametrize(
    ("depends", "beside", "reason"),
    [
        ((), ("1.2.0",), "depends on no libdemo"),
        (("libdemo >=1.2",), (), "its libdemo is not there"),
        (("libdemo >=1.2",), ("1.1.0",), "its libdemo is not there"),
        (("libdemo >=1.2",), ("1.2.0", "1.3.0"), "2 packages fit libdemo >=1.2"),
    ],
)
def test_a_package_to_fold_in_that_is_not_found(
    tmp_path: Path, depends: tuple[str, ...], beside: tuple[str, ...], reason: str
) -> None:
    made = pure(tmp_path, depends=("python >=3.8", *depends))
    for version in beside:
        package(tmp_path, "libdemo", version, files={"share/x": version}, depends=())
    table = {"fold": [{"package": "libdemo"}]}
    assert reason in refused(made, table=table)


@pytest.mark.parametrize("order", [("libone", "libtwo"), ("libtwo", "libone")])
def test_a_librarys_own_library_is_folded_in(tmp_path: Path, order: tuple[str, ...]) -> None:
    made = pure(tmp_path, depends=("python >=3.8", "libone >=1"))
    package(tmp_path, "libone", files={"share/one": "1"}, depends=("libtwo >=2",))
    package(tmp_path, "libtwo", "1.9", files={"share/two": "older"}, depends=())
    table = {"fold": [{"package": name} for name in order]}
    assert "its libtwo is not there" in refused(made, table=table)
    package(tmp_path, "libtwo", "2.1", files={"share/two": "2"}, depends=("libgcc",))
    result = bridge(made, tmp_path / "out", project=project(**table))
    assert [path.name.partition("-")[0] for path in result.folded] == list(order)


def test_folded_packages_fit_each_other(tmp_path: Path) -> None:
    made = pure(tmp_path, depends=("python >=3.8", "libone", "libtwo"))
    package(tmp_path, "libone", files={"share/one": "1"}, depends=("libtwo >=2",))
    package(tmp_path, "libtwo", "1.9", files={"share/two": "older"}, depends=())
    table = {"fold": [{"package": "libtwo"}, {"package": "libone"}]}
    assert "which depends on libtwo >=2" in refused(made, table=table)


def test_a_place_for_a_file_that_is_a_folder(tmp_path: Path) -> None:
    made = pure(tmp_path, files={"share/demo/x": "1"})
    with pytest.raises(ConfigError, match="'share/demo' is a folder in demo") as caught:
        bridge(made, tmp_path / "out", project=project(files={"share/demo": "drop"}))
    assert caught.value.fix == 'write "share/demo/"'


def test_a_file_of_a_folded_package_outside_its_places(tmp_path: Path) -> None:
    made = pure(tmp_path, depends=("python >=3.8", "libdemo"))
    package(tmp_path, "libdemo", files={"share/x": ""}, depends=())
    table = {"fold": [{"package": "libdemo", "files": {"lib/": "demo/lib/"}}]}
    assert "libdemo-1.2.0-h_0.conda: share/x: cannot go into a wheel" in refused(made, table=table)


def test_a_folded_package_with_programs(tmp_path: Path) -> None:
    made = pure(tmp_path, depends=("python >=3.8", "demo-core"))
    link = b'{"noarch": {"type": "python", "entry_points": ["x = demo:main"]}}'
    pure(tmp_path, name="demo-core", info={"info/link.json": link})
    table = {"fold": [{"package": "demo-core"}]}
    assert "info/link.json: has entry points" in refused(made, table=table)


def test_a_name_that_pypi_has_not(tmp_path: Path) -> None:
    made = pure(tmp_path, name="_demo")
    assert "'_demo' is no name of a project on PyPI" in refused(made)
    assert bridge(made, tmp_path, project=project(**{"wheel-name": "demo"})).outcome == "written"


def test_a_label_whose_dependency_says_otherwise(tmp_path: Path) -> None:
    table = {
        "label": {
            "build": "np{numpy}_{number}",
            "local": "np{numpy}",
            "fields": {"numpy": {"form": "{major:1}.{minor}", "depends": "numpy"}},
        }
    }
    right = pure(tmp_path, build="np2.1_0", depends=("python >=3.8", "numpy >=2.1,<2.2.0a0"))
    assert bridge(right, tmp_path, project=project(**table)).outcome == "written"
    for number, depends in enumerate(("numpy >=2.1", "numpy 2.0.*", "scipy")):
        made = pure(tmp_path / str(number), build="np2.1_0", depends=("python >=3.8", depends))
        assert "expected: numpy==2.1.*, as the file name has it" in refused(made, table=table)
