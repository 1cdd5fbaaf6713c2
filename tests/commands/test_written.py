"""Every command that is written somewhere names one build of ours, and is answered with it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import factories
import found
import pytest
from found import Command
from packaging.requirements import Requirement
from site_of_page import Installers, Served
from solver import Answer, solve
from typed import Elsewhere, Typed, read, words

from conda_bridge.errors import LabelError
from conda_bridge.publish import index
from flashinfer_build.label import LIBRARY_NAME, NAME, Label
from flashinfer_build.variants import DEFAULT_VARIANT

ROOT = Path(__file__).resolve().parents[2]
# What spells the names of builds; all others ask one of them. The second is in the packages.
_COMPOSERS = ("scripts/flashinfer_build/label.py", "flashinfer/_compat.py")
_OURS = re.compile(rf"(?:{LIBRARY_NAME}|{NAME})(?![\w-])", re.ASCII)
# What a reader puts in: where the artifacts of a build are, and any folder.
_PUT_IN = {"<index>": "file://$PWD/dist/index", "<channel>": "file://$PWD/dist/channel"}
DOCUMENTS, PROGRAMS = list(found.in_documents(ROOT)), list(found.in_programs(ROOT))


def typed(command: Command) -> str:
    """As a reader types it."""
    text = command.text
    for name, value in _PUT_IN.items():
        text = text.replace(name, value)
    return text


def is_ours(name: str) -> bool:
    return bool(_OURS.match(name))


def is_place(name: str) -> bool:
    """A file, a folder or an address, which is not looked for anywhere else."""
    return name == "..." or name.startswith(".") or "://" in name or name.endswith(".whl")


def complaint(line: str) -> str:
    """What is wrong with a line; empty for nothing."""
    try:
        command = read(line, ROOT)
    except (AssertionError, ValueError, IndexError):
        return "no shell reads it as a command"
    names = [name for name in command.names if not is_place(name)]
    ours = [name for name in names if is_ours(name)]
    if command.program not in ("pip", "uv"):
        return next(filter(None, map(_of_conda, ours)), "") or _of_channels(command, ours)
    for name in ours:
        requirement = Requirement(name)
        [pin, *more] = list(requirement.specifier) or [None]
        if more or pin is None or pin.operator != "==":
            return f"{name} is not one version"
        try:
            label = Label.parse_wheel_version(pin.version)
        except LabelError as error:
            return str(error)
        options = {"pip": ("--extra-index-url", "-i"), "uv": ("--index",)}[command.program]
        places = [place for name in options for place in command.options.get(name, [])]
        if [place.endswith(f"/{label.index_dir}/") for place in places] != [True]:
            return f"{name} is in the index {label.index_dir}"
        strategy = command.options.get("--index-strategy")
        if command.program == "uv" and strategy != ["first-index"]:
            return "UV_INDEX_STRATEGY decides which index it is from"
    if not ours and names and "--extra-index-url" in command.options:
        return "a second index, and nothing of ours"
    return ""


def _of_conda(name: str) -> str:
    """A version and a build, or a version to which a driver and a torch choose the build."""
    return "" if re.fullmatch(r"[a-z]+(==[\d.a-z]+|=[\d.a-z]+=\w+\*?)", name) else f"{name} is open"


def _of_channels(command: Typed, ours: list[str]) -> str:
    channels = command.options.get("-c", [])
    if ours and (len(channels) != 2 or channels[1] != "conda-forge"):
        return f"the channels are {channels}, not ours and conda-forge"
    return ""


# ------------------------------------------------------------ the rule


@pytest.mark.parametrize("command", DOCUMENTS, ids=str)
def test_a_document_names_one_build(command: Command) -> None:
    assert not complaint(typed(command))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pip install flashinfer", "is not one version"),
        ("pip install flashinfer --extra-index-url <index>/cu130/torch2.13/", "not one version"),
        ('pip install "flashinfer>=0.1.6" --extra-index-url <index>/cpu/torch2.9/', "not one"),
        ('pip install "flashinfer==0.1.*" --extra-index-url <index>/cpu/torch2.9/', "0.1.*"),
        ("pip install flashinfer==0.1.6 --extra-index-url <index>/cpu/torch2.9/", "local part"),
        ("pip install flashinfer==0.1.6+cputorch2.9", "is in the index cpu/torch2.9"),
        (
            "pip install flashinfer==0.1.6+cputorch2.9 --extra-index-url <index>/cu130/torch2.9/",
            "is in the index cpu/torch2.9",
        ),
        ("pip install numpy --extra-index-url <index>/cpu/torch2.9/", "nothing of ours"),
        ("conda install -c <channel> -c conda-forge flashinfer", "flashinfer is open"),
        ("conda install -c <channel> -c conda-forge libflashinfer", "libflashinfer is open"),
        ("conda install -c <channel> -c conda-forge flashinfer=0.1.6", "is open"),
        ('conda install -c <channel> -c conda-forge "flashinfer>=0.1.6"', "is open"),
        ("conda install -c conda-forge -c <channel> flashinfer==0.1.6", "channels"),
        ("conda install flashinfer==0.1.6", "channels"),
        ("pip install 'flashinfer", "no shell"),
        ("mamba create -n x -c <channel> -c conda-forge flashinfer", "flashinfer is open"),
        ("python -m pip install flashinfer==0.1.6", "local part"),
        ("uv pip install -U flashinfer", "is not one version"),
        ("pip3 install flashinfer", "is not one version"),
        (
            "uv pip install flashinfer==0.1.6+cputorch2.9 --index <index>/cpu/torch2.9/",
            "UV_INDEX_STRATEGY",
        ),
        (
            "uv pip install flashinfer==0.1.6+cputorch2.9 --extra-index-url <index>/cpu/torch2.9/",
            "is in the index",
        ),
    ],
)
def test_a_line_that_leaves_it_open_is_found(line: str, said: str, tmp_path: Path) -> None:
    """In a block, and in a table."""
    for text in (f"# x\n\n```\n$ {line}\n```\n", f"| a | b |\n|---|---|\n| c | d: `{line}` |\n"):
        (tmp_path / "README.md").write_text(text)
        [command] = found.in_documents(tmp_path)
        assert line.endswith(command.text)
        assert said in complaint(typed(command))


def test_there_are_such_lines_at_all() -> None:
    """As many as can be seen when one looks, so that a reader that finds none is noticed."""
    files = [command.file for command in DOCUMENTS if _OURS.search(command.text)]
    assert files.count("README.md") >= 6
    assert files.count("docs/index.md") >= 2


def test_programs_leave_our_names_to_the_label() -> None:
    """A command of a program that names a package of ours is one of the label module's."""
    ours = {
        command.file
        for command in PROGRAMS
        if re.search(r"[\s\"']flashinfer(?![\w-])", command.text)
    }
    assert ours <= set(_COMPOSERS)
    spelled = [
        (path, text)
        for path, text, docstring in found.texts_of_programs(ROOT)
        if not docstring
        and path not in _COMPOSERS
        and re.search(rf"(?<![\w./-]){_OURS.pattern}={{1,2}}[\d{{]", text)
    ]
    assert not spelled


@pytest.mark.parametrize("command", [c for c in PROGRAMS if "{}" not in c.text], ids=str)
def test_a_command_of_a_program_is_one(command: Command) -> None:
    assert not complaint(typed(command).replace("<scratch>", "scratch"))


# ------------------------------------------------------------ the answers


def _naming_ours(program: str) -> list[str]:
    lines = dict.fromkeys(typed(command) for command in DOCUMENTS)
    return [
        line for line in lines if line.startswith(program) and any(map(is_ours, read(line).names))
    ]


def of_wheel(line: str) -> Label:
    """The build that a line of pip names."""
    [name] = filter(is_ours, read(line).names)
    return Label.parse_wheel_version(name.partition("==")[2])


def of_package(line: str) -> Label:
    """The build that a line of conda names; of a version alone, the one for the driver below."""
    [name] = filter(is_ours, read(line).names)
    if "==" in name:
        name = f"{name.replace('==', '=')}={DEFAULT_VARIANT}_0"
    _, version, build = name.split("=")
    return Label.parse_conda_file(f"{NAME}-{version}-{build.replace('_*', '_0')}.conda")


PIP, UV, CONDA = (_naming_ours(program) for program in ("pip ", "uv ", "conda "))
# Of others', which are asked of the user's own index and channels.
THEIRS = {
    line: names
    for line in dict.fromkeys(typed(command) for command in (*DOCUMENTS, *PROGRAMS))
    if "{}" not in line and "<" not in line and line not in (*PIP, *UV, *CONDA)
    for names in [read(line).names]
    if names and not any(map(is_place, names))
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    names = {name for names in THEIRS.values() for name in names}
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"), sorted(names))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output of builds of all that the documents name, in dist/."""
    folder: Path = tmp_path_factory.mktemp("shell")
    made = []
    for label in {*map(of_wheel, (*PIP, *UV)), *map(of_package, CONDA)}:
        package = factories.write_pair(folder / "made", label)
        wheel = factories.bridge(package, folder / "made").path
        made += [package, package.with_name(label.lib_conda_file), wheel]
    index.publish(dict.fromkeys(made), folder / "dist", project=factories.FLASHINFER)
    return folder


@pytest.fixture(scope="module")
def answers(shell: Path, elsewhere: Elsewhere) -> Mapping[str, Answer]:
    conda = [*CONDA, *(line for line in THEIRS if line.startswith("conda "))]
    return solve({line: elsewhere.case(line, shell, "13.0") for line in conda})


@pytest.mark.parametrize("line", PIP)
def test_pip_takes_what_a_document_names(line: str, shell: Path, elsewhere: Elsewhere) -> None:
    label = of_wheel(line)
    taken = elsewhere.pip_takes(line, shell)
    assert taken[label.wheel_file].startswith(shell.as_uri())
    assert any(name.startswith("torch-{}.{}.".format(*label.variant.torch)) for name in taken)


@pytest.mark.parametrize("line", UV)
def test_uv_takes_what_a_document_names(
    line: str, shell: Path, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    served = Served(shell)
    try:
        address = f"{served.url}/dist"
        line = line.replace("file://$PWD/dist", address)
        # Whoever has the hostile ones is asked in PyPI's place.
        (shell / "elsewhere").symlink_to(elsewhere.folder)
        taken = Installers(tmp_path, served, elsewhere).taken([("uv", line)])
        assert taken == {line: {of_wheel(line).wheel_file}}
    finally:
        (shell / "elsewhere").unlink(missing_ok=True)
        served.stop()


@pytest.mark.parametrize("line", CONDA)
def test_conda_takes_what_a_document_names(line: str, answers: Mapping[str, Answer]) -> None:
    label, answer = of_package(line), answers[line]
    assert not answer.refusal
    assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"


def _of_pip_install(arguments: list[str]) -> list[str]:
    """What ``pip install`` reads as requirements, by its own parser.

    In a process of its own: whoever imports pip gets the standard library's distutils, which
    setuptools does not work with.
    """
    program = (
        "import json, sys; from pip._internal.commands import create_command;"
        "print(json.dumps(create_command('install').parse_args(sys.argv[1:])[1]))"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout)
    return names


def test_what_others_have_is_found_by_its_name(
    shell: Path, elsewhere: Elsewhere, answers: Mapping[str, Answer]
) -> None:
    """And there is nothing else on the line: each word is an option of the program or a package."""
    wanted = []
    for line, names in THEIRS.items():
        if line.startswith("conda "):
            assert all(name in answers[line] for name in names)
        else:
            assert _of_pip_install(words(line, shell)[2:]) == names
            wanted += names
    assert {"ninja", "pytest"} < set(wanted)
    taken = elsewhere.pip_takes(shlex.join(["pip", "install", *wanted]), shell)
    files = {f"{name.replace('-', '_')}-1.0-py3-none-any.whl" for name in wanted}
    assert set(taken) == files
