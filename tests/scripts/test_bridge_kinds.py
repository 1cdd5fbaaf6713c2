"""Every kind of conda package as a wheel: tags, places, metadata, and that it runs installed."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from factories import LICENSE
from foreign import PREFIX, SITE, library, metadata, module, package, project
from installer.sources import WheelFile

from conda_bridge.bridge.convert import Bridged, bridge
from conda_bridge.errors import ArtifactError
from conda_bridge.formats import elf

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN = f"lib/python{HERE}/site-packages/"
LINK = b'{"noarch": {"type": "python", "entry_points": ["demo = demo:main"]}}'
PURE = {"demo/__init__.py": "def main():\n    print('the demo says 42')\n"}


def below(folder: str, files: dict[str, Any]) -> dict[str, Any]:
    return {f"{folder}{path}": content for path, content in files.items()}


def made(path: Path, output: Path, **options: Any) -> tuple[Bridged, dict[str, bytes]]:
    """The wheel of a package, its RECORD checked, and its files."""
    result = bridge(path, output, **options)
    with WheelFile.open(result.path) as source:
        source.validate_record()
    with zipfile.ZipFile(result.path) as archive:
        return result, {name: archive.read(name) for name in archive.namelist()}


def headers(files: dict[str, bytes]) -> Message:
    [text] = [data for name, data in files.items() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(text)


def tag(result: Bridged) -> str:
    return "-".join(result.path.stem.split("-")[-3:])


def installed(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel in it; its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def says(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---------------------------------------------------------------- pure Python


@pytest.mark.parametrize("ending", [".conda", ".tar.bz2"])
def test_a_pure_package_with_programs(tmp_path: Path, ending: str) -> None:
    """Entry points of link.json and scripts of python-scripts both run once pip has them."""
    path = package(
        tmp_path,
        noarch="python",
        subdir="noarch",
        ending=ending,
        depends=("python >=3.8", "pyyaml >=6,<7.0a0"),
        files={
            **below("site-packages/", PURE),
            "site-packages/demo/__pycache__/__init__.cpython-312.pyc": b"\0",
            "python-scripts/demo-script": f"#!{PREFIX}/bin/python\nimport demo\ndemo.main()\n",
        },
        prefixes={"python-scripts/demo-script": "text"},
        info={
            "info/link.json": LINK,
            "info/licenses/LICENSE": LICENSE,
        },
    )
    result, files = made(path, tmp_path / "out")
    assert result.path.name == "demo-1.2.0-py3-none-any.whl"
    assert set(files) == {
        "demo/__init__.py",
        "demo-1.2.0.data/scripts/demo-script",
        *(f"demo-1.2.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
        "demo-1.2.0.dist-info/entry_points.txt",
        "demo-1.2.0.dist-info/licenses/LICENSE",
    }
    assert files["demo-1.2.0.data/scripts/demo-script"].startswith(b"#!python\n")
    assert b"Root-Is-Purelib: true\n" in files["demo-1.2.0.dist-info/WHEEL"]
    said = headers(files)
    assert said["License-Expression"] == "MIT"
    assert (said["Summary"], said["Requires-Python"]) == ("A demo", ">=3.8")
    assert said.get_all("Requires-Dist") == ["pyyaml<7,>=6"]
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "demo") == says(programs / "demo-script") == "the demo says 42"


def test_an_or_of_pythons_is_the_one_that_metadata_says_too(tmp_path: Path) -> None:
    """pip has no word for it, and the same Pythons 3 are in METADATA; others are refused."""
    own = "site-packages/demo-1.2.0.dist-info/METADATA"
    for number, said in enumerate((">=2.7,!=3.0.*,!=3.1.*", ">=2.7,!=3.0.*", "")):
        text = metadata("demo", "1.2.0", *([f"Requires-Python: {said}"] if said else []))
        path = package(
            tmp_path,
            build=f"py_{number}",
            noarch="python",
            subdir="noarch",
            depends=("python 2.7.*|>=3.2",),
            files={**below("site-packages/", PURE), own: text},
        )
        if not number:
            _, files = made(path, tmp_path)
            assert headers(files)["Requires-Python"] == "!=3.0.*,!=3.1.*,>=2.7"
            continue
        with pytest.raises(ArtifactError, match="has no form for the version") as caught:
            bridge(path, tmp_path)
        assert "one of the two" in caught.value.fix and repr(said) in caught.value.expected


def test_folded_headers_are_one_line(tmp_path: Path) -> None:
    text = metadata(
        "demo",
        "1.2.0",
        *("Summary: one\n  two\tthree", "Keywords: a,\n b", "Requires-Python: >=3.8,\n <4"),
        *("Requires-Dist: numpy>=1;\n  extra == 'x'", "Provides-Extra: x"),
        *("Classifier: Topic ::\n Utilities", "Author: A\n        Person"),
    )
    own = "site-packages/demo-1.2.0.dist-info/METADATA"
    path = package(
        tmp_path,
        files={**below("site-packages/", PURE), own: text},
        noarch="python",
        subdir="noarch",
    )
    said = headers(made(path, tmp_path)[1])
    assert (said["Summary"], said["Keywords"]) == ("one two three", "a,b")
    assert said.get_all("Requires-Dist") == ['numpy>=1; extra == "x"']
    assert (said["Classifier"], said["Author"]) == ("Topic :: Utilities", "A Person")


def test_metadata_of_the_build_is_kept(tmp_path: Path) -> None:
    """Extras, conditions, addresses, people, entry points of other groups, licences and SBOMs."""
    own = "site-packages/Demo_Project-1.2.0.dist-info/"
    text = metadata(
        "Demo.Project",
        "1.2.0",
        "Summary: from METADATA",
        "Author-email: A Person <person@example.org>",
        "Project-URL: Changes, https://example.org/changes",
        "Classifier: License :: OSI Approved :: MIT License",
        "Classifier: Topic :: Utilities",
        "License-File: LICENSE.txt",
        "Provides-Extra: fast",
        'Requires-Dist: numpy; extra == "fast"',
        'Requires-Dist: colorama; sys_platform == "win32"',
        "Requires-Dist: uvicorn[standard]>=0.20",
        'Requires-Dist: tomli>=1; python_version < "3.11"',
        "Description-Content-Type: text/markdown",
        body="# Demo\n",
    )
    points = "[demo.plugins]\none = demo:main\n\n[console_scripts]\ndemo = demo:main\n"
    path = package(
        tmp_path,
        "demo-project",
        noarch="python",
        subdir="noarch",
        depends=("python >=3.9", "uvicorn >=0.23", "tomli", "foo-tool"),
        files={
            **below("site-packages/", PURE),
            f"{own}METADATA": text,
            f"{own}entry_points.txt": points,
            f"{own}LICENSE.txt": LICENSE,
            f"{own}sboms/demo.cdx.json": b"{}",
            f"{own}pbr.json": b'{"is_release": true}',
            f"{own}RECORD.jws": b"",
            f"{own}top_level.txt": "demo\n",
            f"{own}RECORD": "",
            f"{own}INSTALLER": "conda",
            f"{own}direct_url.json": "{}",
        },
        info={"info/link.json": LINK},
    )
    table = {"dependencies": {"foo-tool": {"drop": "a program that this demo does not run"}}}
    result, files = made(path, tmp_path, project=project(**table))
    assert result.path.name == "demo_project-1.2.0-py3-none-any.whl"
    info = "demo_project-1.2.0.dist-info"
    assert {name.partition("/")[2] for name in files if name.startswith(info)} == {
        *("METADATA", "WHEEL", "RECORD", "entry_points.txt"),
        *("licenses/LICENSE.txt", "sboms/demo.cdx.json", "pbr.json"),
    }
    assert files[f"{info}/pbr.json"] == b'{"is_release": true}'
    assert files[f"{info}/entry_points.txt"].decode() == points
    said = headers(files)
    assert (said["Name"], said["Summary"]) == ("Demo.Project", "from METADATA")
    assert said["Author-email"] == "A Person <person@example.org>"
    assert "Changes, https://example.org/changes" in said.get_all("Project-URL", [])
    assert said.get_all("Classifier") == ["Topic :: Utilities"]  # the expression says the licence
    assert said.get_all("Provides-Extra") == ["fast"]
    assert said["License-File"] == "LICENSE.txt"
    assert said.get_all("Requires-Dist") == [
        'colorama; sys_platform == "win32"',
        'numpy; extra == "fast"',
        'tomli; python_version < "3.11"',
        "uvicorn[standard]>=0.23",
    ]
    assert said.get_payload() == "# Demo\n"


def test_an_older_package_has_an_egg_info(tmp_path: Path) -> None:
    folder = f"{SITE}demo-1.2.0-py3.12.egg-info/"
    path = package(
        tmp_path,
        depends=("python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"),
        files={
            **below(SITE, PURE),
            f"{folder}PKG-INFO": metadata("demo", "1.2.0", "Home-page: https://example.org"),
            f"{folder}entry_points.txt": "[console_scripts]\ndemo = demo:main\n",
            f"{folder}SOURCES.txt": "",
            "bin/demo": f"#!{PREFIX}/bin/python\nfrom demo import main\n",
        },
        prefixes={"bin/demo": "text"},
    )
    result, files = made(path, tmp_path)
    assert tag(result) == "py3-none-any"
    assert headers(files)["Home-page"] == "https://example.org"
    assert "demo-1.2.0.dist-info/entry_points.txt" in files
    assert not any("scripts/" in name for name in files)


@pytest.mark.parametrize(
    ("conda", "source", "wheel"),
    [
        ("1.2.0", "1.2", "1.2"),  # the same version; METADATA's spelling
        ("1.2.0", "1.2.0+cpu", "1.2.0+cpu"),
        ("1.2.0", "1.3.0", "1.2.0"),
        ("1.2.0.rc1", "1.2.0rc1", "1.2.0rc1"),
        ("1.2.0.rc1", "", "1.2.0rc1"),
    ],
)
def test_the_version(tmp_path: Path, conda: str, source: str, wheel: str) -> None:
    files = below("site-packages/", PURE)
    if source:
        files["site-packages/demo-1.dist-info/METADATA"] = metadata("demo", source)
    path = package(tmp_path, version=conda, noarch="python", subdir="noarch", files=files)
    assert made(path, tmp_path)[0].path.name == f"demo-{wheel}-py3-none-any.whl"


def test_the_build_number_is_the_build_tag(tmp_path: Path) -> None:
    path = package(
        tmp_path,
        build="h_3",
        build_number=3,
        noarch="python",
        subdir="noarch",
        files=below("site-packages/", PURE),
    )
    assert made(path, tmp_path)[0].path.name == "demo-1.2.0-3-py3-none-any.whl"


@pytest.mark.parametrize(
    ("built_as", "expected"),
    [
        ("", "py3-none-any"),
        ("py3-none-any", "py3-none-any"),
        ("cp312-none-any", "cp312-none-any"),
        ("cp311-none-any", "py3-none-any"),  # of another Python than it is for
    ],
)
def test_a_pure_package_for_one_python(tmp_path: Path, built_as: str, expected: str) -> None:
    own = f"{SITE}demo-1.2.0.dist-info/"
    text = metadata("demo", "1.2.0", "Requires-Python: >=3.9")
    path = package(
        tmp_path,
        depends=("python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"),
        files={
            **below(SITE, PURE),
            f"{own}METADATA": text,
            f"{own}WHEEL": f"Wheel-Version: 1.0\nTag: {built_as}\n",
        },
    )
    result, files = made(path, tmp_path)
    assert tag(result) == expected
    assert headers(files)["Requires-Python"] == ">=3.9"


# ---------------------------------------------------------------- extension modules


def test_a_module_for_one_python(tmp_path: Path) -> None:
    """What it is says the name; one with a bare name is known by what it exports."""
    path = package(
        tmp_path,
        depends=("python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312", "__glibc >=2.17,<3.0.a0"),
        files={
            **below(SITE, PURE),
            f"{SITE}demo/_one.cpython-312-x86_64-linux-gnu.so": module("_one"),
            f"{SITE}demo/_two.so": module("_two"),
            f"{SITE}demo/libplain.so": library("libplain.so"),
        },
    )
    result, files = made(path, tmp_path)
    assert tag(result).startswith("cp312-cp312-manylinux_2_")
    assert tag(result).endswith("_x86_64")
    assert files["demo/_two.so"] == module("_two")
    assert headers(files)["Requires-Python"] == "<3.13,>=3.12"


def test_a_module_of_this_python_is_imported(tmp_path: Path) -> None:
    digits = HERE.replace(".", "")
    name = f"demo/_one.cpython-{digits}-x86_64-linux-gnu.so"
    path = package(tmp_path, files={f"{OWN}demo/__init__.py": "", f"{OWN}{name}": module("_one")})
    result, _ = made(path, tmp_path / "out")
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "python", "-c", "from demo import _one; print(_one.answer)") == "7"


def test_stable_modules_for_every_python(tmp_path: Path) -> None:
    """``noarch: python`` with a subdir (CEP 20), as conda-forge's python-abi3 makes it."""
    path = package(
        tmp_path,
        noarch="python",
        depends=("cpython >=3.9", "python >=3.9", "_python_abi3_support 1.*", "libgcc >=13"),
        files={
            **below("site-packages/", PURE),
            "site-packages/demo/_one.abi3.so": module("_one"),
            "site-packages/demo/plugins/helper.so": library("helper.so"),
        },
    )
    result, _ = made(path, tmp_path)
    assert tag(result).startswith("cp39-abi3-manylinux_2_")


@pytest.mark.parametrize(
    ("built_as", "expected"), [("cp39-abi3-linux_x86_64", "cp39"), ("", "cp312")]
)
def test_stable_modules_in_a_package_for_one_python(
    tmp_path: Path, built_as: str, expected: str
) -> None:
    own = f"{SITE}demo-1.2.0.dist-info/"
    path = package(
        tmp_path,
        depends=("python >=3.12,<3.13.0a0", "python_abi 3.12.* *_cp312"),
        files={
            f"{SITE}demo/_one.abi3.so": module("_one"),
            f"{own}METADATA": metadata("demo", "1.2.0", "Requires-Python: >=3.9"),
            f"{own}WHEEL": f"Tag: {built_as}\n",
        },
    )
    assert tag(made(path, tmp_path)[0]).startswith(f"{expected}-abi3-manylinux_2_")


def test_libraries_for_ctypes_need_no_python(tmp_path: Path) -> None:
    code = (
        "import ctypes, pathlib\n"
        "answer = ctypes.CDLL(str(pathlib.Path(__file__).with_name('libdemo.so'))).answer()\n"
    )
    path = package(
        tmp_path,
        files={f"{OWN}demo/__init__.py": code, f"{OWN}demo/libdemo.so": library("libdemo.so")},
    )
    result, _ = made(path, tmp_path / "out")
    assert tag(result).startswith("py3-none-manylinux_2_")
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "python", "-c", "import demo; print(demo.answer)") == "42"


def test_another_processor(tmp_path: Path) -> None:
    """The machine is in bytes 18 and 19 of an ELF file."""
    plain = library("libdemo.so")
    changed = plain[:18] + (183).to_bytes(2, "little") + plain[20:]
    files = {f"{SITE}demo/__init__.py": "", f"{SITE}demo/libdemo.so": changed}
    path = package(tmp_path, subdir="linux-aarch64", files=files)
    assert tag(made(path, tmp_path)[0]).endswith("_aarch64")
    result, _ = made(path, tmp_path / "plain", platform_tag="linux_aarch64")
    assert tag(result) == "py3-none-linux_aarch64"


# ---------------------------------------------------------------- the rest of a prefix

CHAIN = {"lib/libdemo.so": "libdemo.so.1", "lib/libdemo.so.1": "libdemo.so.1.2.0"}
LIBRARY = library("libdemo.so.1")


def test_a_library_of_lib_is_found_in_the_wheel(tmp_path: Path) -> None:
    """One file by its SONAME beside the package, and a RUNPATH that leads there."""
    one = module(
        "_one",
        calls="answer",
        needs=(("libdemo.so.1", LIBRARY),),
        rpath="$ORIGIN/../../../",
        old_rpath=True,
    )
    path = package(
        tmp_path,
        files={
            f"{OWN}demo/__init__.py": "",
            f"{OWN}demo/_one.abi3.so": one,
            "lib/libdemo.so.1.2.0": LIBRARY,
        },
        links=CHAIN,
    )
    result, files = made(path, tmp_path / "out")
    assert set(result.payload) == {
        "demo/__init__.py",
        "demo/_one.abi3.so",
        "demo.libs/libdemo.so.1",
    }
    assert files["demo.libs/libdemo.so.1"] == LIBRARY
    changed = elf.read(files["demo/_one.abi3.so"], "it")
    assert (changed.rpath, changed.runpath) == (("$ORIGIN/../demo.libs",), ())
    assert "demo/_one.abi3.so: RUNPATH is $ORIGIN/../demo.libs now" in result.notes
    assert any(note.startswith("lib/libdemo.so is not in the wheel") for note in result.notes)
    assert [left.name for left in result.path.parent.iterdir()] == [result.path.name]
    assert bridge(path, tmp_path / "out", threads=3).outcome == "unchanged"
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "python", "-c", "from demo import _one; print(_one.answer)") == "42"


def test_a_runpath_that_leads_there_keeps_its_bytes(tmp_path: Path) -> None:
    one = module("_one", calls="answer", needs=(("libdemo.so.1", LIBRARY),), rpath="$ORIGIN/lib")
    path = package(
        tmp_path,
        files={f"{OWN}demo/_one.abi3.so": one, f"{OWN}demo/lib/libdemo.so.1": LIBRARY},
    )
    result, files = made(path, tmp_path / "out")
    assert files["demo/_one.abi3.so"] == one
    assert result.notes == ()
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "python", "-c", "from demo import _one; print(_one.answer)") == "42"


def test_programs_and_data_of_the_prefix(tmp_path: Path) -> None:
    """A program that needs a library of lib: both stay where they are to each other."""
    from foreign import compiled

    program = compiled(
        '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); }\n',
        program=True,
        needs=(("libdemo.so.1", LIBRARY),),
        rpath="$ORIGIN/../lib",
    )
    path = package(
        tmp_path,
        depends=(),
        files={
            f"{OWN}demo/__init__.py": "",
            "bin/demo": program,
            "bin/demo.sh": "#!/bin/sh\necho shell\n",
            "lib/libdemo.so.1.2.0": LIBRARY,
            "share/demo/words.txt": "words",
            "etc/demo.conf": "answer = 42",
            "include/demo.h": "int answer(void);",
            f"include/python{HERE}/demo/api.h": "int answer(void);",
            "etc/conda/test-files/demo/1/test.py": "",
        },
        links={**CHAIN, "bin/demo42": "demo", "share/demo/same.txt": "words.txt"},
        executable=("bin/demo", "bin/demo.sh"),
    )
    result, files = made(path, tmp_path / "out")
    data = "demo-1.2.0.data/"
    assert set(result.payload) == {
        "demo/__init__.py",
        *(f"{data}scripts/{name}" for name in ("demo", "demo.sh", "demo42")),
        *(f"{data}data/{name}" for name in ("lib/libdemo.so.1", "etc/demo.conf")),
        *(f"{data}data/share/demo/{name}" for name in ("words.txt", "same.txt")),
        *(f"{data}data/include/demo.h", f"{data}headers/api.h"),
    }
    assert files[f"{data}scripts/demo"] == files[f"{data}scripts/demo42"] == program
    assert tag(result).startswith("py3-none-manylinux_2_")
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "demo") == says(programs / "demo42") == "42"
    assert says(programs / "demo.sh") == "shell"
    assert (programs.parent / "share/demo/same.txt").read_text() == "words"


@pytest.mark.parametrize(
    "first",
    [
        f"#!{PREFIX}/bin/python",
        f"#!{PREFIX}/bin/python3.12 -E",
        "#!/usr/bin/env python3",
        f"#!/bin/sh\n'''exec' {PREFIX}/bin/python3.12 \"$0\" \"$@\"\n' '''",
    ],
)
def test_scripts_run_by_the_environments_python(tmp_path: Path, first: str) -> None:
    path = package(
        tmp_path,
        files={
            **below(SITE, PURE),
            f"{SITE}demo/tool.py": f"{first}\nprint(1)\n",
            "bin/tool": f"{first}\nprint(1)\n",
        },
        prefixes={"bin/tool": "text", f"{SITE}demo/tool.py": "text"} if PREFIX in first else {},
        executable=("bin/tool", f"{SITE}demo/tool.py"),
    )
    result, files = made(path, tmp_path)
    assert files["demo-1.2.0.data/scripts/tool"] == b"#!python\nprint(1)\n"
    expected = "#!/usr/bin/env python3" if PREFIX in first else first
    assert files["demo/tool.py"].decode() == f"{expected}\nprint(1)\n"
    with zipfile.ZipFile(result.path) as archive:
        for name in ("demo-1.2.0.data/scripts/tool", "demo/tool.py"):
            assert archive.getinfo(name).external_attr >> 16 == 0o100755


def test_a_package_of_programs_that_is_given_a_name(tmp_path: Path) -> None:
    path = package(
        tmp_path, depends=(), files={"bin/demo": "#!/bin/sh\necho 42\n"}, executable=("bin/demo",)
    )
    result, _ = made(path, tmp_path, project=project(**{"wheel-name": "demo-programs"}))
    assert result.path.name == "demo_programs-1.2.0-py3-none-any.whl"


# ---------------------------------------------------------------- other packages folded in


@pytest.mark.parametrize(
    "depends", ["libdemo", "libdemo 1.2.0 h_0", "libdemo >=1.2,<1.3.0a0", "libdemo ==1.2.0 h_0"]
)
def test_a_package_folded_in(tmp_path: Path, depends: str) -> None:
    one = module("_one", calls="answer", needs=(("libdemo.so.1", LIBRARY),), rpath="$ORIGIN/../..")
    path = package(
        tmp_path,
        depends=("python >=3.8", depends, "libgcc >=13"),
        files={f"{OWN}demo/__init__.py": "", f"{OWN}demo/_one.abi3.so": one},
    )
    package(
        tmp_path,
        "libdemo",
        depends=("libgcc >=13", "pyyaml"),
        files={"lib/libdemo.so.1.2.0": LIBRARY, "include/demo.h": ""},
        links=CHAIN,
        about={"license": "BSD-3-Clause"},
        info={"info/licenses/COPYING": b"of the library"},
    )
    (tmp_path / "libdemo-2.0-h_0.conda").write_bytes(b"another, which is not asked for")
    if depends == "libdemo":
        (tmp_path / "libdemo-2.0-h_0.conda").unlink()
    table = {"fold": [{"package": "libdemo", "files": {"lib/": "demo/lib/", "include/": "drop"}}]}
    result, files = made(path, tmp_path / "out", project=project(**table))
    assert [folded.name for folded in result.folded] == ["libdemo-1.2.0-h_0.conda"]
    assert "demo/lib/libdemo.so.1" in result.payload
    said = headers(files)
    assert said.get_all("Requires-Dist") == ["pyyaml"]  # what is folded in needs it
    assert said["License-Expression"] == "MIT AND BSD-3-Clause"
    assert files["demo-1.2.0.dist-info/licenses/libdemo/COPYING"] == b"of the library"
    programs = installed(result.path, tmp_path / "venv")
    assert says(programs / "python", "-c", "from demo import _one; print(_one.answer)") == "42"


def test_a_library_that_only_code_opens_is_told_of(tmp_path: Path) -> None:
    path = package(
        tmp_path,
        files={f"{SITE}demo/__init__.py": "", "lib/libdemo.so.1.2.0": LIBRARY},
        links=CHAIN,
    )
    result, _ = made(path, tmp_path / "a")
    assert any("demo.libs/libdemo.so.1: nothing in the wheel" in note for note in result.notes)
    table = {"files": {"lib/": "demo/", "lib/libdemo.so": "demo/libdemo.so"}}
    result, files = made(path, tmp_path / "b", project=project(**table))
    assert files["demo/libdemo.so"] == files["demo/libdemo.so.1"] == LIBRARY
    assert not any("nothing in the wheel" in note for note in result.notes)


def test_modules_of_a_folded_package_count(tmp_path: Path) -> None:
    path = package(
        tmp_path,
        noarch="python",
        subdir="noarch",
        depends=("python >=3.12,<3.13.0a0", "demo-core"),
        files=below("site-packages/", PURE),
    )
    name = f"{SITE}demo_core/_one.cpython-312-x86_64-linux-gnu.so"
    package(tmp_path, "demo-core", files={name: module("_one")})
    result, _ = made(path, tmp_path, project=project(fold=[{"package": "demo-core"}]))
    assert tag(result).startswith("cp312-cp312-manylinux")


def test_a_label_of_a_project_of_its_own(tmp_path: Path) -> None:
    table = {
        "label": {
            "build": "{blas}_{number}",
            "local": "{blas}",
            "fields": {"blas": {"choices": ["mkl", "openblas"]}},
        }
    }
    own = "site-packages/demo-1.2.0+mkl.dist-info/METADATA"
    files = {**below("site-packages/", PURE), own: metadata("demo", "1.2.0+mkl")}
    path = package(
        tmp_path, build="mkl_2", build_number=2, noarch="python", subdir="noarch", files=files
    )
    result, _ = made(path, tmp_path, project=project(**table))
    assert result.path.name == "demo-1.2.0+mkl-2-py3-none-any.whl"
