"""What `release.py snippet` prints makes each tool take the build that it names, and no other.

Beside it are a higher version of the same name on the public index, and on conda-forge one of the
very same version and build.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import factories
import installers
import programs
import pytest
import stand_in
import yaml
from solver import Answer, Case, solve
from typed import HOSTILE, Elsewhere

from conda_bridge.publish import index
from flashinfer_build import snippet
from flashinfer_build.label import Label
from flashinfer_build.variants import DEFAULT_VARIANT

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = {
    "index": "https://example.org/flashinfer/index",
    "channel": "https://example.org/flashinfer/channel",
}

CUDA = factories.label_of("cu130_torch213")
NIGHTLY = factories.label_of("cpu_torch29", public_version="0.1.7rc1.dev20261122", commit="0123456")
REBUILD = factories.label_of("cu126_torch213", build_number=1)
LABELS = (CUDA, NIGHTLY, REBUILD)
# What is there besides, of the same variants.
OTHERS = (
    factories.label_of("cu130_torch213", public_version="0.1.5"),
    factories.label_of("cu130_torch213", public_version="0.1.7"),
    factories.label_of("cu130_torch214"),
    factories.label_of("cpu_torch29", public_version="0.1.7rc1"),
    factories.label_of("cu126_torch213"),
)


@dataclass(frozen=True)
class Places:
    """Where our packages are, and what is elsewhere."""

    dist: Path
    elsewhere: Elsewhere

    @property
    def index(self) -> str:
        return (self.dist / "index").as_uri()

    @property
    def channel(self) -> str:
        return (self.dist / "channel").as_uri()

    def text(self, label: Label, tool: str) -> str:
        """The file of a tool, as the program prints it."""
        named = label.conda_file if label.build_number else label.wheel_version
        places = ["--index", self.index, "--channel", self.channel]
        ended = programs.run("release", "snippet", named, "--for", tool, *places)
        assert (ended.code, ended.err) == (0, b"")
        return ended.out.decode()

    def run(self, folder: Path, *command: str) -> str:
        """What a program prints that knows no other index than these two."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_"))
        }
        environ |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.elsewhere.index,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_DEFAULT_INDEX": self.elsewhere.index,
            "UV_NO_CONFIG": "1",
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_CACHE_DIR": str(self.dist.with_name("uv-cache")),
        }
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def wheel(self, label: Label) -> Path:
        return self.dist / "wheels" / label.wheel_file


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder: Path = tmp_path_factory.mktemp("snippets")
    made = []
    for label in (*LABELS, *OTHERS):
        package = factories.write_pair(folder / "made", label)
        wheel = factories.bridge(package, folder / "made").path
        made += [package, package.with_name(label.lib_conda_file), wheel]
    index.publish(dict.fromkeys(made), folder / "dist", project=factories.FLASHINFER)
    elsewhere = Elsewhere(folder / "elsewhere")
    # Anybody may copy a version and a build string, too, and give it a higher build number.
    copies = [
        stand_in.record(name, label.conda_version, build, 9_999_999)
        for label in LABELS
        for name, build in (
            ("flashinfer", label.conda_build),
            ("libflashinfer", label.lib_conda_build),
        )
    ]
    hostile = [stand_in.record(name, HOSTILE, "h_0") for name in ("flashinfer", "libflashinfer")]
    records = {
        (item["name"], item["version"], item["build"]): item
        for item in (*stand_in.conda_forge(), *hostile, *copies)
    }
    elsewhere.channel = stand_in.write_channel(folder / "forge", records.values())
    return Places(folder / "dist", elsewhere)


# ------------------------------------------------------------ the example


@pytest.mark.parametrize("tool", snippet.FORMS)
def test_the_example_is_what_the_program_prints(tool: str) -> None:
    form = snippet.FORMS[tool]
    path = ROOT / "examples" / "consumer" / tool / form.file
    address = EXAMPLE[form.place]
    again = f"python scripts/release.py snippet {DEFAULT_VARIANT} --for {tool}"
    again += f" --{form.place} {address} --output {path.relative_to(ROOT)} --replace"
    label = Label.compose(factories.label_of(DEFAULT_VARIANT).variant, environ={})
    assert path.read_text() == snippet.snippet(label, tool, address), f"to do: {again}"


def test_the_example_has_these_files_and_no_others() -> None:
    folder = ROOT / "examples" / "consumer"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {f"{tool}/{form.file}" for tool, form in snippet.FORMS.items()}
    assert found == {*files, "README.md", "consumer.py"}


# ------------------------------------------------------------ the answers


def torch_of(label: Label) -> str:
    return "{}.{}".format(*label.variant.torch)


@pytest.mark.parametrize("label", LABELS, ids=str)
def test_pip_takes_the_build(label: Label, places: Places, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(places.text(label, "pip"))
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    said = places.run(
        tmp_path, sys.executable, "-P", "-m", "pip", "install", *options, "-r", "requirements.txt"
    )
    taken = {
        item["metadata"]["name"]: urllib.parse.unquote(item["download_info"]["url"])
        for item in json.loads(said)["install"]
    }
    assert taken.keys() == {"flashinfer", "torch"}
    assert taken["flashinfer"] == urllib.parse.unquote(places.wheel(label).as_uri())
    assert f"/torch-{torch_of(label)}." in taken["torch"]


def test_pip_tools_lock_the_build_by_its_digest(places: Places, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(places.text(CUDA, "pip"))
    compile_ = [*installers.PIP_COMPILE, "--quiet", "--generate-hashes", "--strip-extras"]
    places.run(tmp_path, *compile_, "-o", "lock.txt", "requirements.txt")
    lock = (tmp_path / "lock.txt").read_text().replace("\\\n", "")
    digest = hashlib.sha256(places.wheel(CUDA).read_bytes()).hexdigest()
    [line] = [line for line in lock.splitlines() if line.startswith("flashinfer")]
    assert line.split() == [CUDA.wheel_requirement, f"--hash=sha256:{digest}"]
    assert f"--extra-index-url {CUDA.folder_of(places.index)}" in lock
    places.run(
        *(tmp_path, sys.executable, "-P", "-m", "pip", "install", "--quiet", "--target", "site"),
        *("--require-hashes", "-r", "lock.txt"),
    )
    assert installed(tmp_path / "site") == {CUDA.wheel_version}


def installed(site: Path) -> set[str]:
    """The versions of flashinfer whose metadata is there."""
    found = site.glob("flashinfer-*.dist-info")
    return {path.name.removesuffix(".dist-info").partition("-")[2] for path in found}


@pytest.mark.parametrize("label", LABELS, ids=str)
def test_uv_locks_and_installs_the_build(label: Label, places: Places, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(places.text(label, "uv"))
    uv = installers.UV
    places.run(tmp_path, uv, "lock", "--quiet")
    locked = tomllib.loads((tmp_path / "uv.lock").read_text())["package"]
    of = {package["name"]: package for package in locked}
    assert of.keys() == {"consumer", "flashinfer", "torch"}
    assert of["flashinfer"]["version"] == label.wheel_version
    # Of a build and its rebuild the lock has both, and the latter is installed.
    digest = hashlib.sha256(places.wheel(label).read_bytes()).hexdigest()
    wheels = {Path(wheel["path"]): wheel["hash"] for wheel in of["flashinfer"]["wheels"]}
    assert wheels[places.wheel(label)] == f"sha256:{digest}"
    assert all(path.parent == places.dist / "wheels" for path in wheels)
    assert of["torch"]["version"].startswith(f"{torch_of(label)}.")
    places.run(tmp_path, uv, "sync", "--quiet", "--locked")
    [site] = tmp_path.glob(".venv/lib/python3*/site-packages")
    assert installed(site) == {label.wheel_version}
    info = (site / "flashinfer" / "_build_info.py").read_text()
    assert f"BUILD_NUMBER = {label.build_number}\n" in info
    # The file for pip does as well.
    (tmp_path / "requirements.txt").write_text(places.text(label, "pip"))
    said = places.run(tmp_path, uv, "pip", "compile", "--quiet", "requirements.txt")
    assert label.wheel_requirement in said.splitlines()


def test_without_the_index_of_its_own_uv_takes_another(places: Places, tmp_path: Path) -> None:
    """What is elsewhere is hostile indeed."""
    text = places.text(CUDA, "uv").partition("[tool.uv.sources]")[0]
    (tmp_path / "pyproject.toml").write_text(text.replace(CUDA.wheel_requirement, "flashinfer"))
    places.run(tmp_path, installers.UV, "lock", "--quiet")
    assert f'version = "{HOSTILE}"' in (tmp_path / "uv.lock").read_text()


def of_environment(text: str) -> tuple[list[str], list[str]]:
    """Channels and specifications of an ``environment.yml``."""
    document = yaml.safe_load(text)
    assert set(document) == {"name", "channels", "dependencies"}
    return document["channels"], document["dependencies"]


def of_pixi(text: str) -> tuple[list[str], list[str], str]:
    """Channels, specifications and the driver's CUDA of a ``pixi.toml``."""
    document = tomllib.loads(text)
    specs = [
        f"{name}[version='{spec['version']}',build='{spec['build']}',channel='{spec['channel']}']"
        for name, spec in document["dependencies"].items()
    ]
    driver = document.get("system-requirements", {}).get("cuda", "")
    assert document["workspace"]["platforms"] == ["linux-64"]
    return document["workspace"]["channels"], specs, driver


@pytest.fixture(scope="module")
def answers(places: Places) -> Mapping[str, Answer]:
    def named(channels: list[str]) -> list[str]:
        forge = places.elsewhere.channel
        return [forge if name == "conda-forge" else name for name in channels]

    def case(channels: list[str], wanted: list[str], driver: str, priority: bool) -> Case:
        machine = {"__glibc": "2.36", **({"__cuda": driver} if driver else {})}
        return Case(named(channels), wanted, machine, priority=priority)

    others = Elsewhere(places.dist.with_name("others")).channel
    cases = {}
    for label in LABELS:
        channels, specs, driver = of_pixi(places.text(label, "pixi"))
        assert bool(driver) == bool(label.variant.cuda)
        cases[f"pixi {label}"] = case(channels, specs, driver, True)
        channels, specs = of_environment(places.text(label, "conda"))
        # What is from anywhere else, whatever the setting; the copies, by conda's own setting.
        cases[f"conda {label}"] = case(channels, specs, driver, True)
        cases[f"others {label}"] = case([places.channel, others], specs, driver, False)
    bare = [places.channel, places.elsewhere.channel]
    cases["copied"] = Case(
        bare, [CUDA.conda_spec], {"__glibc": "2.36", "__cuda": "13"}, priority=False
    )
    return solve(cases)


@pytest.mark.parametrize("tool", ["pixi {}", "conda {}", "others {}"])
@pytest.mark.parametrize("label", LABELS, ids=str)
def test_the_solver_takes_the_build_from_our_channel(
    label: Label, tool: str, answers: Mapping[str, Answer], places: Places
) -> None:
    answer = answers[tool.format(label)]
    assert not answer.refusal
    assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"
    assert answer["libflashinfer"] == f"{label.conda_version} {label.lib_conda_build}"
    assert answer["pytorch"].startswith(f"{torch_of(label)}.")
    for name in ("flashinfer", "libflashinfer"):
        assert answer.places[name].startswith(f"{places.channel}/linux-64/"), answer.places


def test_without_a_channel_the_copy_is_taken(answers: Mapping[str, Answer], places: Places) -> None:
    """What is elsewhere is hostile indeed."""
    assert answers["copied"].places["flashinfer"].startswith(places.elsewhere.channel)


def test_the_commands_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (ROOT / "docs" / "snippets.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("    python scripts/release.py ")]
    tools = []
    for line in commands:
        text = line.replace("<index>", EXAMPLE["index"]).replace("<channel>", EXAMPLE["channel"])
        words = shlex.split(text)[2:]
        ended = programs.run("release", *words)
        assert (ended.code, ended.err) == (0, b"")
        tools.append(words[words.index("--for") + 1])
    assert tools == list(snippet.FORMS)
    assert "explicit = true" in (tmp_path / "pyproject.toml").read_text()


# ------------------------------------------------------------ what is refused


A = "https://a.test/x"
MATRIX = "cu130 with torch 2.9,"


@pytest.mark.parametrize(
    ("named", "tool", "address", "said"),
    [
        ("cu131_torch213", "uv", A, "take cpu_torch213, cu126_torch213, cu130_torch213"),
        ("cu131_torch31", "uv", A, MATRIX),
        ("0.1.6+cu131torch2.13", "uv", A, "cu130_torch213"),
        ("torch213", "uv", A, MATRIX),
        ("0.1.6", "uv", A, MATRIX),
        ("0.1.6+cu130", "uv", A, MATRIX),
        ("flashinfer-0.1.6-py3-none-any.whl", "uv", A, "has no local part"),
        ("libflashinfer-0.1.6-cu130_0.conda", "conda", A, "not a flashinfer conda package"),
        ("cu130_torch213", "uv", None, "add --index URL"),
        ("cu130_torch213", "conda", None, "add --channel URL"),
        ("cu130_torch213", "uv", "a.test/x", "is no address"),
        ("cu130_torch213", "uv", "", "is no address"),
        ("cu130_torch213", "pip", f"{A} y", "is no address"),
        ("cu130_torch213", "pip", f"{A}\n--index-url https://b.test", "is no address"),
        ("cu130_torch213", "pip", f"{A}${{HOME}}", "is no address"),
        ("cu130_torch213", "pip", f"{A}?y", "is no address"),
        ("cu130_torch213", "uv", f'{A}"', "is no address"),
        ("cu130_torch213", "conda", f"{A} #", "is no address"),
        ("cu130_torch213", "conda", "a: b", "is no address"),
        ("cu130_torch213", "pip", "https://me:secret@a.test/x", "a password"),
        ("cu130_torch213", "conda", "https://me@a.test/x", "a name or"),
    ],
)
def test_what_cannot_be_written_down_is_refused(
    named: str, tool: str, address: str | None, said: str
) -> None:
    place = snippet.FORMS[tool].place
    other = "channel" if place == "index" else "index"
    options = [f"--{other}", A, *([f"--{place}", address] if address is not None else [])]
    ended = programs.run("release", "snippet", named, "--for", tool, *options)
    assert (ended.code, ended.out) == (2, b"")
    assert said in ended.err.decode()
    assert "secret" not in ended.err.decode()


def test_a_channel_may_have_a_name_alone() -> None:
    text = snippet.snippet(CUDA, "conda", "our-channel/label/dev")
    channels, specs = of_environment(text)
    assert channels == ["our-channel/label/dev", "conda-forge"]
    assert specs[0] == f"our-channel/label/dev::{CUDA.conda_spec}"


def test_a_file_is_written_whole_and_never_over_another(tmp_path: Path) -> None:
    """A pyproject.toml has more in it than what depends on us."""
    path = tmp_path / "pyproject.toml"
    arguments = ["snippet", DEFAULT_VARIANT, "--for", "uv", "--index", "https://a.test/x"]
    arguments += ["--output", str(path)]

    def run(*more: str) -> tuple[int, str]:
        ended = programs.run("release", *arguments, *more)
        return ended.code, ended.both.decode()

    assert run("--dry-run") == (0, f"would write {path}\n")
    assert not path.exists()
    assert run() == (0, f"wrote {path}\n")
    assert run() == (0, f"unchanged: {path}\n")
    path.write_text("# mine\n")
    code, said = run()
    assert (code, path.read_text()) == (1, "# mine\n")
    assert "add --replace" in said
    assert run("--replace", "--dry-run") == (0, f"would write {path}\n")
    assert path.read_text() == "# mine\n"
    assert run("--replace") == (0, f"wrote {path}\n")
    assert tomllib.loads(path.read_text())["project"]["name"] == "consumer"
    ended = programs.run("release", *arguments[:-1], str(tmp_path))
    assert (ended.code, sorted(tmp_path.iterdir())) == (2, [path])
