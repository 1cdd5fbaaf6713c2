"""meta.yaml and recipe.yaml are two spellings of the same packages, named by label.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import pytest
from meta_yaml import Recipe
from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

from flashinfer_build import variants
from flashinfer_build.compile import compiler_cache
from flashinfer_build.label import Label

SPECS = variants.load()

BUILDS: dict[str, dict[str, str]] = {
    "as version.txt says": {},
    "nightly": {
        "FLASHINFER_BUILD_VERSION": "0.1.7.dev20261122",
        "FLASHINFER_BUILD_COMMIT": "0123456",
        "FLASHINFER_BUILD_NUMBER": "2",
    },
    "release candidate": {"FLASHINFER_BUILD_VERSION": "0.2.0rc1", "MAX_JOBS": "3"},
    "with a compiler cache": {
        "FLASHINFER_COMPILER_CACHE": "ccache",
        "CCACHE_DIR": "/there",
        "SCCACHE_DIR": "/here",
    },
    "alpha of a post release": {"FLASHINFER_BUILD_VERSION": "0.2.0a2.post1.dev3"},
    "beta, variables set to nothing": {
        "FLASHINFER_BUILD_VERSION": "0.2.0b10",
        "FLASHINFER_BUILD_COMMIT": "",
        "FLASHINFER_BUILD_NUMBER": "",
        "MAX_JOBS": "",
    },
}


@dataclass(frozen=True)
class Package:
    """What a recipe says about one package, in terms of neither format."""

    name: str
    version: str
    build: str
    build_number: str
    version_independent: bool
    track_features: str
    relocated: bool
    sources: list[tuple[str, str]]
    script: str
    environ: dict[str, str]
    requirements: dict[str, list[str]]
    ignored_run_exports: list[str]
    imports: list[str]
    pip_check: bool
    files_that_exist: list[str]
    test_files: list[str]
    test_requires: list[str]
    test_commands: list[str]
    about: dict[str, Any]


# Every variant as a release, and a few of them in every other way.
EVERY_BUILD = pytest.mark.parametrize(
    ("spec", "environ"),
    [
        pytest.param(spec, name, id=f"{spec.id}-{name.replace(' ', '_')}")
        for name in BUILDS
        for spec in (SPECS if not BUILDS[name] else SPECS[::13])
    ],
    indirect=True,
)


@pytest.fixture
def environ(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The build's environment, also set in this process: rattler-build reads it from there."""
    for name in ("VERSION", "COMMIT", "NUMBER"):
        monkeypatch.delenv(f"FLASHINFER_BUILD_{name}", raising=False)
    for name in ("MAX_JOBS", *compiler_cache.VARIABLES):
        monkeypatch.delenv(name, raising=False)
    chosen = BUILDS[getattr(request, "param", "as version.txt says")]
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


@pytest.fixture(params=SPECS, ids=lambda spec: spec.id)
def spec(request: pytest.FixtureRequest) -> variants.VariantSpec:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def of_meta_yaml(
    root: Path, spec: variants.VariantSpec, environ: Mapping[str, str]
) -> dict[str, Package]:
    return {
        package.name: package
        for package in read_meta_yaml(
            Recipe(root / "recipe/meta.yaml", spec.as_mapping(), environ).render()
        )
    }


@pytest.fixture
def of_recipe_yaml(
    root: Path, spec: variants.VariantSpec, environ: Mapping[str, str]
) -> dict[str, Package]:
    platform = PlatformConfig(target_platform="linux-64", experimental=True)
    rendered = Stage0Recipe.from_file(root / "recipe/recipe.yaml").render(
        VariantConfig(spec.as_rattler()), RenderConfig(platform=platform)
    )
    named = {variant.recipe.package.name: variant.recipe.to_dict() for variant in rendered}
    assert len(named) == len(rendered)
    pins = {
        name: f"{name} {recipe['package']['version']} {recipe['build']['string']}"
        for name, recipe in named.items()
    }
    return {name: read_recipe_yaml(recipe, pins) for name, recipe in named.items()}


def read_meta_yaml(recipe: Mapping[str, Any]) -> Iterator[Package]:
    for output in recipe["outputs"]:
        build, test, about = output["build"], output["test"], output["about"]
        commands = test["commands"]
        exist = [re.fullmatch(r"test -f \$PREFIX/(\S+)", command) for command in commands]
        environ = dict(line.split("=", 1) for line in build["script_env"])
        requirements = output["requirements"]
        yield Package(
            name=output["name"],
            version=recipe["package"]["version"],
            build=build["string"],
            build_number=recipe["build"]["number"],
            version_independent=build.get("python_version_independent", "false") == "true",
            track_features=" ".join(build.get("track_features") or []),
            relocated=build.get("binary_relocation", "true") == "true",
            sources=[(item["path"], item.get("folder", "")) for item in recipe["source"]],
            script=output["script"],
            environ={name: value for name, value in environ.items() if value},
            requirements={
                "build": requirements["build"],
                "host": requirements.get("host") or [],
                "run": requirements.get("run") or [],
                "constraints": requirements.get("run_constrained") or [],
            },
            ignored_run_exports=build["ignore_run_exports"],
            imports=test.get("imports", []),
            pip_check="python -m pip check" in commands,
            files_that_exist=[found[1] for found in exist if found],
            test_files=test["files"],
            test_requires=[name for name in test.get("requires", []) if name != "pip"],
            test_commands=[
                command
                for command, found in zip(commands, exist, strict=True)
                if not found and command != "python -m pip check"
            ],
            about={
                "homepage": about["home"],
                "repository": about["dev_url"],
                "license": about["license"],
                "license_file": [about["license_file"]]
                if isinstance(about["license_file"], str)
                else about["license_file"],
                "summary": about["summary"],
                "description": about["description"],
            },
        )


def read_recipe_yaml(recipe: Mapping[str, Any], pins: Mapping[str, str]) -> Package:
    def text(requirement: str | Mapping[str, Any]) -> str:
        if isinstance(requirement, str):
            return requirement
        pin = requirement["pin_subpackage"]
        assert pin["exact"] is True
        return pins[pin["name"]]

    def command(script: Mapping[str, Any]) -> str:
        """A test as one shell command, as meta.yaml has it."""
        settings = " ".join(f"{key}={value}" for key, value in script["env"].items())
        return f"{settings} {script['interpreter']} {script['file']}"

    build, requirements = recipe["build"], recipe["requirements"]
    name = recipe["package"]["name"]
    python = [test["python"] for test in recipe["tests"] if "python" in test]
    contents = [test["package_contents"] for test in recipe["tests"] if "package_contents" in test]
    scripts = [test for test in recipe["tests"] if "script" in test]
    worse = build.get("variant", {}).get("down_prioritize_variant", 0)
    about = dict(recipe["about"])
    return Package(
        name=name,
        version=recipe["package"]["version"],
        build=build["string"],
        build_number=str(build["number"]),
        version_independent=build.get("python", {}).get("version_independent", False),
        # What rattler-build 0.73 writes into index.json for that many steps down.
        track_features=" ".join(f"{name}-p-{step}" for step in range(worse)),
        relocated=build.get("dynamic_linking", {}).get("binary_relocation", True),
        sources=[(item["path"], item.get("target_directory", "")) for item in recipe["source"]],
        script=build["script"]["file"],
        environ=build["script"]["env"],
        requirements={
            "build": [text(item) for item in requirements["build"]],
            "host": [text(item) for item in requirements.get("host", [])],
            "run": [text(item) for item in requirements.get("run", [])],
            "constraints": [text(item) for item in requirements.get("run_constraints", [])],
        },
        ignored_run_exports=requirements["ignore_run_exports"]["by_name"],
        imports=[module for test in python for module in test["imports"]],
        pip_check=any(test.get("pip_check", True) for test in python),
        files_that_exist=[path for test in contents for path in test["files"]],
        test_files=[test["script"]["file"] for test in scripts],
        test_requires=[
            item for test in scripts for item in test.get("requirements", {}).get("run", [])
        ],
        test_commands=[command(test["script"]) for test in scripts],
        about=about,
    )


@EVERY_BUILD
def test_both_recipes_are_the_same_packages(
    of_meta_yaml: dict[str, Package], of_recipe_yaml: dict[str, Package]
) -> None:
    assert list(of_meta_yaml) == list(of_recipe_yaml) == ["libflashinfer", "flashinfer"]
    for name, package in of_meta_yaml.items():
        assert asdict(package) == asdict(of_recipe_yaml[name])


@EVERY_BUILD
def test_recipes_name_packages_as_the_label_does(
    spec: variants.VariantSpec, environ: dict[str, str], of_recipe_yaml: dict[str, Package]
) -> None:
    label = Label.compose(spec.variant, environ=environ)
    assert files(of_recipe_yaml) == {label.conda_file, label.lib_conda_file}
    for package in of_recipe_yaml.values():
        assert package.build_number == str(label.conda_build_number)
        assert package.environ["FLASHINFER_BUILD_VERSION"] == label.public_version
        assert package.environ.get("FLASHINFER_BUILD_COMMIT") == label.commit
        assert package.environ["FLASHINFER_BUILD_NUMBER"] == str(label.build_number)
    assert of_recipe_yaml["flashinfer"].environ["FLASHINFER_EXPECT_VARIANT"] == spec.id


def files(packages: Mapping[str, Package]) -> set[str]:
    return {
        f"{package.name}-{package.version}-{package.build}.conda" for package in packages.values()
    }


NO_FREE_THREADING = "python-freethreading <0"


def test_what_a_package_requires(
    spec: variants.VariantSpec, of_recipe_yaml: dict[str, Package]
) -> None:
    library, package = of_recipe_yaml["libflashinfer"], of_recipe_yaml["flashinfer"]
    pin = f"libflashinfer {library.version} {library.build}"
    torch = f"pytorch {spec.pytorch}.*"
    assert library.requirements["run"] == []
    assert pin in package.requirements["host"] and torch in package.requirements["host"]
    assert package.version_independent and not library.version_independent
    if spec.variant.cuda:
        major = spec.variant.cuda[0]
        one_major = f"cuda-version >={major},<{major + 1}"
        driver = f"__cuda >={major}"
        # The library alone runs on the CPU too; only the binding asks for a driver.
        assert library.requirements["constraints"] == [driver, one_major]
        assert package.requirements["constraints"] == [NO_FREE_THREADING, one_major]
        assert package.requirements["run"] == ["python >=3.8", f"{torch} *cuda*", driver, pin]
    else:
        assert library.requirements["constraints"] == []
        assert package.requirements["constraints"] == [NO_FREE_THREADING]
        assert package.requirements["run"] == ["python >=3.8", f"{torch} *cpu*", pin]
    for one in (library, package):
        asked = one.requirements["build"] + one.requirements["host"]
        if spec.variant.cuda:
            assert f"cuda-nvcc {spec.cuda_nvcc}.*" in one.requirements["build"]
            assert one.environ["FLASHINFER_CUDA_ARCH_LIST"] == spec.cuda_arch_list
        else:
            assert "cuda" not in " ".join(asked)
        assert f"gxx_linux-64 {spec.cxx_compiler_version}.*" in one.requirements["build"]
        assert f"gxx_linux-64 <{spec.gxx_below}" in one.requirements["build"]
        # The build number ranks the variants; features would outrank even a newer version.
        assert one.track_features == ""
        assert not one.relocated
    # What conda-forge's packages would add by themselves, and what is stated better by hand.
    assert library.ignored_run_exports == ["cuda-cudart", "cuda-version"]
    assert package.ignored_run_exports == ["cuda-cudart", "cuda-version", "pytorch", "libtorch"]


def test_the_library_is_one_package_whatever_the_torch(root: Path) -> None:
    """conda-build and scripts/build.py build it once per CUDA: its torch must not show."""
    seen: dict[str, dict[str, Any]] = {}
    for spec in SPECS:
        for package in read_meta_yaml(
            Recipe(root / "recipe/meta.yaml", spec.as_mapping(), {}).render()
        ):
            if package.name == "libflashinfer":
                assert seen.setdefault(package.build, asdict(package)) == asdict(package)
    assert len(seen) == len({spec.cuda_nvcc for spec in SPECS})


def test_every_file_that_the_recipes_name_is_there(root: Path) -> None:
    recipe = Recipe(root / "recipe/meta.yaml", SPECS[0].as_mapping(), {}).render()
    for package in read_meta_yaml(recipe):
        named = [path for path, _ in package.sources] + [package.script, *package.test_files]
        assert [path for path in named if not (root / "recipe" / path).exists()] == []
        # What the build itself writes has no file yet: build_library.sh makes the folder.
        for licence in package.about["license_file"]:
            script = (root / "recipe" / package.script).read_text()
            assert f"../{licence}" in named or f"rm -rf build {licence.rstrip('/')}\n" in script


def test_selectors_drop_lines_and_unknown_names_stop(tmp_path: Path) -> None:
    path = tmp_path / "meta.yaml"
    path.write_text(
        "package:\n  version: 2.10\n  name: a  # [cuda_nvcc == 'None']\n"
        "  name: b  # [cuda_nvcc != 'None']\noutputs: []\n"
    )
    rendered = Recipe(path, {"cuda_nvcc": "13.0"}, {}).render()
    assert rendered["package"] == {"version": "2.10", "name": "b"}
    path.write_text("package:\n  version: {{ nowhere }}\noutputs: []\n")
    with pytest.raises(jinja2.UndefinedError, match="nowhere"):
        Recipe(path, {}, {}).render()
