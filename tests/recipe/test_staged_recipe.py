"""What goes to conda-forge is the project's recipe, in conda-forge's ways."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

from conda_bridge.errors import ArtifactError, ConfigError, ConflictError, StorageError
from conda_bridge.system import atomic
from flashinfer_build import variants
from flashinfer_build.forge import staged
from flashinfer_build.forge.staged import FOLDER, Source
from flashinfer_build.label import Label

SPECS = [spec for spec in variants.load() if spec.on_conda_forge]
SHA256 = "0123456789abcdef" * 4
URL = "https://example.org/flashinfer/v{version}.tar.gz"
SCRIPTS = {
    "build_flashinfer.sh",
    "build_library.sh",
    "own_dist_info.py",
    "test_library.py",
    "test_ops.py",
}
# As conda-forge-pinning and the CI of staged-recipes have them: numbers that look like floats are
# not quoted.
PINNING = """\
zip_keys:
  - - cuda_compiler_version
    - c_stdlib_version
    - cxx_compiler_version
  - - python
    - is_python_min
    - is_abi3
cuda_compiler:
  - cuda-nvcc
cuda_compiler_version:
  - None
  - 12.9
  - 13.0
c_stdlib:
  - sysroot
c_stdlib_version:
  - 2.17
  - 2.17
  - 2.28
cxx_compiler:
  - gxx
cxx_compiler_version:
  - 15
  - 14
  - 14
python:
  - 3.10.* *_cpython
  - 3.11.* *_cpython
  - 3.14.* *_cp314
  - 3.14.* *_cp314t
is_python_min:
  - true
  - false
  - false
  - false
is_abi3:
  - true
  - true
  - true
  - false
python_min:
  - '3.10'
pytorch:
  - '2.13'
"""

Rendered = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release: nothing that the recipe reads is set."""
    for name in list(os.environ):
        if name.startswith(("FLASHINFER_BUILD_", "CCACHE", "SCCACHE")):
            monkeypatch.delenv(name)
    for name in ("MAX_JOBS", "FLASHINFER_COMPILER_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def version(root: Path) -> str:
    return (root / "version.txt").read_text().strip()


@pytest.fixture(scope="module")
def source(version: str) -> Source:
    return Source(URL.format(version=version), SHA256)


@pytest.fixture(scope="module")
def made(root: Path, source: Source) -> dict[str, bytes]:
    return staged.files(root, source, ["octocat", "conda-forge/cuda"])


@pytest.fixture(scope="module")
def text(made: Mapping[str, bytes]) -> str:
    return made["recipe.yaml"].decode()


@pytest.fixture(scope="module")
def recipe(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.fixture(scope="module")
def submission(made: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged-recipes")
    return staged.write(made, out).folder


def render(path: Path, config: VariantConfig, *, platform: str = "linux-64") -> list[Any]:
    """What rattler-build makes of a recipe; the project's own alone is experimental."""
    own = path.parent.name == "recipe"
    rendered = Stage0Recipe.from_file(path).render(
        config,
        RenderConfig(platform=PlatformConfig(target_platform=platform, experimental=own)),
    )
    return [variant.recipe.to_dict() for variant in rendered]


def by_name(recipes: list[dict[str, Any]]) -> Rendered:
    named = {recipe["package"]["name"]: recipe for recipe in recipes}
    assert len(named) == len(recipes)
    return named


def of_conda_forge(spec: variants.VariantSpec) -> VariantConfig:
    """The keys of conda-forge that stand for a variant of the project."""
    return VariantConfig(
        {
            "cuda_compiler": ["cuda-nvcc"],
            "cuda_compiler_version": [spec.cuda_nvcc],
            "pytorch": [spec.pytorch],
            "cxx_compiler_version": [spec.cxx_compiler_version],
            **{key: [value] for key, value in spec.common},
            "python": ["3.10.* *_cpython"],
            "is_python_min": [True],
            "is_abi3": [True],
            "python_min": ["3.10"],
        }
    )


@pytest.fixture(params=SPECS, ids=lambda spec: spec.id)
def spec(request: pytest.FixtureRequest) -> variants.VariantSpec:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def ours(root: Path, spec: variants.VariantSpec) -> Rendered:
    return by_name(render(root / "recipe/recipe.yaml", VariantConfig(spec.as_rattler())))


@pytest.fixture
def theirs(submission: Path, spec: variants.VariantSpec) -> Rendered:
    return by_name(render(submission / "recipe.yaml", of_conda_forge(spec)))


def said(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what is in a package and beside what it can be installed."""
    requirements, build = recipe["requirements"], recipe["build"]
    script = build["script"]
    return {
        "package": recipe["package"],
        "build": {**build, "script": None, "variant": None},
        "script": script["file"],
        "environ": {name: value for name, value in script["env"].items() if value},
        "run": requirements.get("run", []),
        "constraints": requirements.get("run_constraints", []),
        "ignored": requirements["ignore_run_exports"],
        "tests": recipe["tests"],
        "about": recipe["about"],
    }


def test_the_packages_are_those_of_the_project(
    spec: variants.VariantSpec, ours: Rendered, theirs: Rendered
) -> None:
    # What conda-forge asks for beside what the project does.
    for package in theirs.values():
        assert package["about"].pop("documentation").startswith("https://")
    tests = theirs["flashinfer"]["tests"]
    imports = next(test["python"] for test in tests if "python" in test)
    assert imports.pop("python_version") == ["3.10.*", "*"]
    audit = tests.pop()
    assert audit["requirements"] == {"run": ["abi3audit"]}
    assert "abi3audit $SP_DIR/flashinfer/_C.abi3.so" in str(audit["script"])

    assert list(ours) == list(theirs) == ["libflashinfer", "flashinfer"]
    for name, package in ours.items():
        assert said(package) == said(theirs[name])
        assert package["source"] != theirs[name]["source"]


def test_the_packages_have_the_projects_labels(
    spec: variants.VariantSpec, theirs: Rendered
) -> None:
    label = Label.compose(spec.variant, environ={})
    names = {
        f"{name}-{package['package']['version']}-{package['build']['string']}.conda"
        for name, package in theirs.items()
    }
    assert names == {label.conda_file, label.lib_conda_file}
    for package in theirs.values():
        assert package["build"]["number"] == label.conda_build_number


def test_what_it_is_built_with_is_conda_forges(
    spec: variants.VariantSpec, theirs: Rendered
) -> None:
    library, binding = (theirs[name]["requirements"] for name in ("libflashinfer", "flashinfer"))
    cuda = spec.cuda_nvcc
    compilers = [f"gxx_linux-64 {spec.cxx_compiler_version}.*", "sysroot_linux-64 2.28.*", "ninja"]
    nvcc = [f"cuda-version {cuda}.*", f"cuda-nvcc_linux-64 {cuda}.*"] if spec.variant.cuda else []
    assert library["build"] == [*compilers, "python", "packaging", *nvcc]
    assert binding["build"] == [*compilers, *nvcc]
    runtime = [f"cuda-version {cuda}.*", "cuda-cudart-dev", "cuda-cccl"]
    assert library.get("host", []) == (runtime if spec.variant.cuda else [])
    kind = "cuda" if spec.variant.cuda else "cpu"
    torch = ["pytorch", f"pytorch * *{kind}*"]
    assert binding["host"][:-1] == [
        "python-abi3",
        "python",
        "pip",
        "setuptools >=70.1",
        "packaging >=22",
        *torch,
    ]


def test_the_pinning_of_conda_forge_gives_each_package_once(
    submission: Path, tmp_path: Path, version: str
) -> None:
    (tmp_path / "pinning.yaml").write_text(PINNING)
    config = VariantConfig.from_file(tmp_path / "pinning.yaml")
    made = render(submission / "recipe.yaml", config)
    assert sorted((one["package"]["name"], one["build"]["string"]) for one in made) == [
        ("flashinfer", "cpu_torch213_0"),
        ("flashinfer", "cu129_torch213_0"),
        ("flashinfer", "cu130_torch213_0"),
        ("libflashinfer", "cpu_0"),
        ("libflashinfer", "cu129_0"),
        ("libflashinfer", "cu130_0"),
    ]
    assert {one["package"]["version"] for one in made} == {version}
    for platform in ("linux-aarch64", "osx-arm64", "win-64"):
        keys = {"c_stdlib": ["x"], "c_stdlib_version": ["1"], "cxx_compiler": ["x"]}
        config = VariantConfig({**of_conda_forge(SPECS[0]).to_dict(), **keys})
        assert render(submission / "recipe.yaml", config, platform=platform) == []


def test_a_rebuild_counts_in_the_context(submission: Path, tmp_path: Path) -> None:
    """Where conda-forge's bot looks for the number, and nowhere else."""
    changed = tmp_path / "recipes/recipe.yaml"
    changed.parent.mkdir()
    text = (submission / "recipe.yaml").read_text()
    changed.write_text(text.replace("\n  build_number: 0\n", "\n  build_number: 2\n"))
    [spec] = [spec for spec in SPECS if spec.id == variants.DEFAULT_VARIANT]
    rendered = by_name(render(changed, of_conda_forge(spec)))
    label = Label.compose(spec.variant, build_number=2, environ={})
    assert rendered["flashinfer"]["build"]["string"] == label.conda_build
    assert rendered["libflashinfer"]["build"]["string"] == label.lib_conda_build
    assert rendered["flashinfer"]["build"]["number"] == label.conda_build_number
    assert rendered["flashinfer"]["build"]["script"]["env"]["FLASHINFER_BUILD_NUMBER"] == "2"


def test_the_submission_holds_what_the_recipe_names_and_nothing_else(
    root: Path, submission: Path
) -> None:
    assert submission.relative_to(submission.parents[1]) == Path(FOLDER)
    there = {path.name for path in submission.iterdir()}
    assert there == {"recipe.yaml", *SCRIPTS}
    for name in SCRIPTS:
        assert (submission / name).read_bytes() == (root / "recipe" / name).read_bytes()


def test_the_recipe_is_ordered_as_conda_smithy_wants(recipe: Mapping[str, Any]) -> None:
    assert list(recipe) == [
        "schema_version",
        "context",
        "recipe",
        "source",
        "build",
        "outputs",
        "about",
        "extra",
    ]
    for output in recipe["outputs"]:
        parts = [part for part in output["requirements"] if part in ("build", "host", "run")]
        assert parts == sorted(parts, key=("build", "host", "run").index)


def test_the_recipe_has_what_conda_smithy_asks_for(recipe: Mapping[str, Any], version: str) -> None:
    assert recipe["schema_version"] == 1
    assert recipe["context"]["version"] == version and recipe["context"]["build_number"] == 0
    assert "number" in recipe["build"]
    assert recipe["source"] == {"url": URL.format(version="${{ version }}"), "sha256": SHA256}
    about = recipe["about"]
    assert {"homepage", "repository", "documentation", "summary", "description"} <= set(about)
    assert about["license"] == "Apache-2.0" and about["license_file"] == "LICENSE"
    assert recipe["extra"] == {
        "feedstock-name": "flashinfer",
        "recipe-maintainers": ["octocat", "conda-forge/cuda"],
    }
    for output in recipe["outputs"]:
        assert output["tests"]
        build = output["requirements"]["build"]
        assert '${{ compiler("cxx") }}' in build and '${{ stdlib("c") }}' in build


def test_the_recipe_is_spelled_as_conda_smithy_wants(text: str, recipe: object) -> None:
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert re.findall(r"#.*\[[^\[\]]+\]", text) == []  # would be selectors
    for expression in re.findall(r"\$\{\{(.*?)\}\}", text):
        assert expression == f" {expression.strip()} "
    # 2.10 would be 2.1.
    assert not any(isinstance(value, float) for value in leaves(recipe))
    # Nothing is redefined that conda-forge pins.
    assert not re.search(r"^ *(python_min|pytorch|cuda_compiler_version|is_abi3):", text, re.M)
    # rattler-build would ask for --experimental, and the machine would have a say.
    assert "load_from_file" not in text and "env.get" not in text and "../" not in text


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for below in value.values():
            yield from leaves(below)
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below)
    else:
        yield value


def test_the_comments_of_the_recipe_go_with_it(text: str) -> None:
    assert "# The CUDA runtime is linked statically" in text
    assert "--experimental" not in text and "no variant is given" not in text


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """The files of the project that a submission is made from, to be changed."""
    folder = tmp_path / "project"
    shutil.copytree(root / "recipe", folder / "recipe")
    for name in ("conda_build_config.yaml", "version.txt"):
        shutil.copy(root / name, folder)
    return folder


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("gxx_linux-64 <${{ gxx_below }}", "gxx_linux-64 <20", "gxx_linux-64 <"),
        ("- pytorch ${{ pytorch }}.*\n", "- pytorch\n", "pytorch"),
        ("  commit: ${{", "  sha: ${{", "no 'commit'"),
        ("          - flashinfer_variant\n", "", "flashinfer_variant"),
        ("      run:\n        - python >=3.8", "      run:\n        - gxx_below", "gxx_below"),
        ("          pip_check: true", "          pip_check: ../true", "../"),
        ("outputs:", "packages:", "outputs"),
        ("about:\n  homepage", "extra_section:\n  - 1\n\nabout:\n  homepage", "extra_section"),
        ("schema_version: 1", "schema_version: 1  # of CEP 13", "form of YAML"),
    ],
)
def test_a_recipe_that_is_not_known_stops(
    project: Path, source: Source, old: str, new: str, complaint: str
) -> None:
    change(project / "recipe/recipe.yaml", old, new)
    with pytest.raises(ConfigError) as caught:
        staged.files(project, source, ["octocat"])
    assert complaint in caught.value.what
    assert "recipe.yaml" in caught.value.where


def test_what_is_added_to_the_recipe_is_passed_on(project: Path, source: Source) -> None:
    path = project / "recipe/recipe.yaml"
    change(path, "    tests:\n      - python:", "    tests:\n      # New.\n      - python:")
    change(path, "        - python >=3.8\n", "        - python >=3.8\n        - numpy\n")
    change(path, "file: test_ops.py", "file: more_tests.py")
    (project / "recipe/more_tests.py").write_text("print('more')\n")
    made = staged.files(project, source, ["octocat"])
    assert b"      # New.\n      - python:" in made["recipe.yaml"]
    assert b"        - numpy\n" in made["recipe.yaml"]
    assert made["more_tests.py"] == b"print('more')\n" and "test_ops.py" not in made


@pytest.mark.parametrize("other", ["0.2.0rc1", "0.2.0a1", "0.2.0.dev20261122"])
def test_what_is_no_release_is_refused(project: Path, source: Source, other: str) -> None:
    (project / "version.txt").write_text(other + "\n")
    with pytest.raises(ConfigError, match=f"{re.escape(other)} is no release"):
        staged.files(project, source, ["octocat"])


def test_architectures_that_differ_between_cuda_releases_are_refused(
    project: Path, source: Source
) -> None:
    lines = '  # CUDA 12.9\n  - "{0}"\n  - "{0}"\n'
    path = project / "conda_build_config.yaml"
    change(path, lines.format("8.0+PTX;9.0a"), lines.format("9.0a"))
    with pytest.raises(ConfigError, match="cuda_arch_list has"):
        staged.files(project, source, ["octocat"])


@pytest.mark.parametrize("name", ["@octocat", "octo cat", "other/team", "-a", "a--b", "", "a" * 40])
def test_what_is_no_name_on_github_is_refused(root: Path, source: Source, name: str) -> None:
    with pytest.raises(ConfigError, match="name on GitHub"):
        staged.files(root, source, [name])


@pytest.mark.parametrize(
    ("url", "sha256"),
    [
        ("https://example.org/a.tar.gz", SHA256[:-1]),
        ("https://example.org/a.tar.gz", SHA256.upper()),
        ("git@example.org:a.git", SHA256),
        ("http://example.org/a.tar.gz", SHA256),
        ("https://example.org/a b.tar.gz", SHA256),
    ],
)
def test_what_is_no_source_is_refused(url: str, sha256: str) -> None:
    with pytest.raises(ConfigError):
        Source(url, sha256)


def archive(path: Path, names: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content.encode()))
    return path


@pytest.fixture
def members(version: str) -> dict[str, str]:
    """An archive with what a build reads."""
    files = ("csrc/a.h", "flashinfer/a.py", "scripts/a.py", "setup.py", "pyproject.toml")
    others = ("README.md", "LICENSE", "docs/a.md")
    top = f"flashinfer-{version}"
    made = {f"{top}/{name}": "x" for name in (*files, *others)}
    return {**made, f"{top}/version.txt": f"{version}\n"}


def test_an_archive_is_a_source_by_its_digest(
    root: Path, tmp_path: Path, members: dict[str, str]
) -> None:
    path = archive(tmp_path / "a b.tar.gz", members)
    here = staged.source_of(path, None, root)
    assert here.url == path.as_uri() and not here.published
    there = staged.source_of(path, "https://example.org/a.tar.gz", root)
    assert there.sha256 == here.sha256 and there.published


@pytest.mark.parametrize(
    ("dropped", "added", "complaint"),
    [
        ("LICENSE", {}, "lacks LICENSE"),
        ("csrc/a.h", {}, "lacks csrc"),
        ("version.txt", {"version.txt": "0.0.1\n"}, "is of version 0.0.1"),
        ("docs/a.md", {"../other/a": "x"}, "holds 2 folders"),
    ],
)
def test_an_archive_that_would_not_build_is_refused(
    root: Path,
    tmp_path: Path,
    members: dict[str, str],
    version: str,
    dropped: str,
    added: dict[str, str],
    complaint: str,
) -> None:
    top = f"flashinfer-{version}"
    del members[f"{top}/{dropped}"]
    for name, content in added.items():
        members[os.path.normpath(f"{top}/{name}")] = content
    with pytest.raises(ArtifactError, match=complaint):
        staged.source_of(archive(tmp_path / "a.tar.gz", members), None, root)


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_a_damaged_archive_is_refused(
    root: Path, tmp_path: Path, members: dict[str, str], cut: int
) -> None:
    path = archive(tmp_path / "a.tar.gz", members)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"a\.tar\.gz"):
        staged.source_of(path, None, root)
    with pytest.raises(ArtifactError, match="No such file"):
        staged.source_of(tmp_path / "absent", None, root)


def test_the_sdist_holds_what_a_build_reads(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["sdist", "--dist-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*.tar.gz")
    assert staged.source_of(path, None, root).sha256
    with tarfile.open(path) as opened:
        there = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    # Also what is only needed to make the submission from it again.
    for folder, pattern in (("csrc", "*.*"), ("scripts", "*.*"), ("flashinfer", "*.py")):
        files = {
            path.relative_to(root).as_posix()
            for path in (root / folder).rglob(pattern)
            if path.is_file() and path.suffix not in (".pyc", ".so") and path.stem != "_build_info"
        }
        assert files - there == set()
    assert {f"recipe/{name}" for name in (*SCRIPTS, "recipe.yaml", "meta.yaml")} <= there
    assert {"LICENSE", "conda_build_config.yaml"} <= there


def listed(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_equal_submission_is_left_alone_and_another_is_not_replaced(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    assert staged.write(made, tmp_path, dry_run=True).outcome == "due"
    assert list(tmp_path.iterdir()) == []
    assert staged.write(made, tmp_path).outcome == "written"
    assert staged.write(made, tmp_path).outcome == "unchanged"
    folder = tmp_path / FOLDER
    (folder / "recipe.yaml").write_text("edited\n")
    (folder / "meta.yaml").write_text("# conda-smithy refuses both in one folder\n")
    for dry_run in (False, True):
        with pytest.raises(ConflictError, match=r"differs in meta\.yaml, recipe\.yaml"):
            staged.write(made, tmp_path, dry_run=dry_run)
    assert (folder / "recipe.yaml").read_text() == "edited\n"
    before = listed(tmp_path)
    assert staged.write(made, tmp_path, overwrite=True, dry_run=True).outcome == "due"
    assert listed(tmp_path) == before
    assert staged.write(made, tmp_path, overwrite=True).outcome == "written"
    assert listed(folder) == made and listed(tmp_path).keys() == {
        f"{FOLDER}/{name}" for name in made
    }


def test_a_submission_is_written_whole_or_not_at_all(
    made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "test_ops.py":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr(atomic, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        staged.write(made, tmp_path)
    assert listed(tmp_path) == {}
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("the old one\n")
    with contextlib.suppress(StorageError):
        staged.write(made, tmp_path, overwrite=True)
    assert listed(tmp_path) == {f"{FOLDER}/recipe.yaml": b"the old one\n"}


def test_a_file_in_the_way_is_an_error(made: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="NotADirectoryError"):
        staged.write(made, tmp_path / "out")


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/staged_recipe.py", *words],
        cwd=root,
        env={**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"},
        capture_output=True,
        text=True,
    )


def test_the_program(root: Path, tmp_path: Path, members: dict[str, str]) -> None:
    path = archive(tmp_path / "a.tar.gz", members)
    words = (str(tmp_path / "out"), "--maintainer", "octocat", "--archive", str(path))
    done = run(root, *words)
    assert done.returncode == 0, done.stderr
    assert "recipes/flashinfer/recipe.yaml\n" in done.stdout
    assert "not for conda-forge" in done.stdout
    done = run(root, *words, "--json")
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1 and answer["outcome"] == "unchanged"
    assert answer["published"] is False
    assert set(answer["files"]) == {"recipe.yaml", *SCRIPTS}
    done = run(root, *words, "--url", "https://example.org/a.tar.gz", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["error"] == "ConflictError"
    done = run(root, *words, "--url", "https://example.org/a.tar.gz", "--overwrite", "--dry-run")
    assert done.returncode == 0 and "would write" in done.stdout
    assert "not for conda-forge" not in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("out",),
        ("out", "--maintainer", "octocat"),
        ("out", "--maintainer", "octocat", "--sha256", SHA256),
        ("out", "--maintainer", "octocat", "--sha256", SHA256, "--archive", "a.tar.gz"),
        ("out", "--maintainer", "@octocat", "--sha256", SHA256, "--url", "https://a.org/b.tar.gz"),
        ("out", "--maintainer", "octocat", "--archive", "absent.tar.gz"),
    ],
)
def test_unusable_input_ends_with_2(root: Path, words: tuple[str, ...]) -> None:
    done = run(root, *words)
    assert done.returncode == 2 and "error" in done.stderr and "Traceback" not in done.stderr
    assert not (root / "out").exists()
