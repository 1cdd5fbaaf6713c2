"""The embedded builder, on a toy recipe with a real compiler: what it makes, and how it fails."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conda_bridge.errors import ArtifactError, BuildFailed, ToolchainError
from conda_bridge.formats import conda_package
from flashinfer_build.compile import builder
from flashinfer_build.label import Variant
from flashinfer_build.toolchain import system
from flashinfer_build.toolchain.channel import make_channel
from flashinfer_build.toolchain.packages import PackageSpec, make
from flashinfer_build.variants import VariantSpec

RECIPE = """
schema_version: 1
context:
  version: ${{ env.get("TOY_VERSION", default="1.0") }}
recipe:
  name: toy-split
  version: ${{ version }}
build:
  dynamic_linking:
    binary_relocation: false
outputs:
  - package:
      name: libtoy
      version: ${{ version }}
    build:
      string: ${{ "cpu" if cuda_nvcc == "None" else "cu" ~ cuda_nvcc }}_0
      script:
LIBRARY_SCRIPT
    requirements:
      build:
        - ${{ compiler("cxx") }}
        - ${{ stdlib("c") }}
    tests:
      - script:
          - LIBRARY_TEST
  - package:
      name: toy
      version: ${{ version }}
    build:
      string: torch${{ pytorch }}_0
      python:
        version_independent: true
      script:
        - mkdir -p $SP_DIR && echo "value = 7" > $SP_DIR/toy.py
    requirements:
      host:
        - python
        - ${{ pin_subpackage("libtoy", exact=True) }}
      run:
        - python >=3.8
        - ${{ pin_subpackage("libtoy", exact=True) }}
    tests:
      - python:
          imports:
            - toy
          pip_check: false
"""
# LD_RUN_PATH, which the builder sets, would put the prefix into the library.
COMPILE = [
    "unset LD_RUN_PATH",
    "mkdir -p $PREFIX/lib",
    "echo 'int answer() { return 42; }' > answer.cpp",
    "$CXX -shared -fPIC -ffile-prefix-map=$PWD=. answer.cpp -o $PREFIX/lib/libtoy.so",
]
CPU = VariantSpec(
    Variant(None, (2, 13)),
    cuda_nvcc="None",
    pytorch="2.13",
    cuda_arch_list="None",
    cxx_compiler_version="14",
    gxx_below="16",
    common=(("c_stdlib", "sysroot"), ("c_stdlib_version", "2.28"), ("cxx_compiler", "gxx")),
)
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine's Python and compiler under conda's names."""
    cache = tmp_path_factory.mktemp("cache")
    specs: list[PackageSpec] = [
        system.python_package(),
        system.sysroot_package(),
        *system.compiler_packages(system.find_compiler(), system.sysroot_package()),
    ]
    return make_channel([make(spec, cache) for spec in specs], cache)


def write_recipe(
    folder: Path, script: list[str], test: str = "test -f $PREFIX/lib/libtoy.so"
) -> Path:
    lines = "\n".join(f"        - {json.dumps(line)}" for line in script)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("LIBRARY_SCRIPT", lines).replace("LIBRARY_TEST", test))
    return path


@pytest.fixture
def build(channel: Path, tmp_path: Path) -> Build:
    """Builds an output of the toy recipe into tmp_path/channel."""

    def run(
        output: str = "libtoy",
        script: list[str] = COMPILE,
        into: str = "channel",
        test: str = "test -f $PREFIX/lib/libtoy.so",
        **options: object,
    ) -> Path:
        return builder.build(
            write_recipe(tmp_path / "recipe", script, test),
            CPU,
            output,
            [at.as_uri() for at in (tmp_path / into, channel) if at.is_dir()],
            tmp_path / into,
            variant_keys=keys_of_this_machine(),
            environ={"TOY_VERSION": "2.5"},
            work=tmp_path / "work",
            **options,  # type: ignore[arg-type]
        )

    return run


def keys_of_this_machine() -> dict[str, str]:
    return {
        "c_stdlib_version": system.glibc_version(),
        "cxx_compiler_version": system.find_compiler().major,
    }


def published(tmp_path: Path, into: str = "channel") -> list[str]:
    return sorted(path.name for path in (tmp_path / into).rglob("*.conda"))


def test_both_outputs(build: Build, tmp_path: Path) -> None:
    lines: list[str] = []
    library = build("libtoy", report=lines.append)
    assert library == tmp_path / "channel/linux-64/libtoy-2.5-cpu_0.conda"
    assert any("1 tests of the recipe passed" in line for line in lines)
    package = conda_package.read(library)
    compiler = system.find_compiler()
    assert f"libstdcxx >={compiler.major}" in package.index["depends"]
    assert f"__glibc >={system.glibc_version()},<3.0.a0" in package.index["depends"]
    assert [member.path for member in package.payload()] == ["lib/libtoy.so"]

    binding = build("toy")
    assert binding.name == "toy-2.5-torch2.13_0.conda"
    package = conda_package.read(binding)
    assert "libtoy 2.5 cpu_0" in package.index["depends"]  # as conda-build spells it
    assert package.index["noarch"] == "python"
    assert [member.path for member in package.payload()] == ["site-packages/toy.py"]
    records = json.loads((tmp_path / "channel/linux-64/repodata.json").read_text())
    assert set(records["packages.conda"]) == {library.name, binding.name}
    assert not any((tmp_path / "work").glob("*/output"))  # nothing left of what went well


def test_building_twice_gives_the_same_bytes(build: Build) -> None:
    first, second = build(into="first"), build(into="second")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    assert digests[0] == digests[1]


def test_a_failing_script_is_shown_and_nothing_is_published(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        build(script=["echo the reason is here", "exit 3"])
    assert "building libtoy for cpu_torch213" in str(caught.value)
    assert "\nthe reason is here\n" in str(caught.value)
    assert str(caught.value).endswith("Script failed with status 3")
    assert "build_env.sh" not in str(caught.value)  # the builder's own advice
    assert Path(caught.value.where).is_dir()  # to be looked at
    assert published(tmp_path) == []
    assert build().is_file()  # and the next call starts clean


def test_what_the_compiler_said_is_shown_and_not_the_pages_after_it(build: Build) -> None:
    with pytest.raises(BuildFailed) as caught:
        build(script=["echo 'x.cpp:1: error: no such thing'", "seq 100", "exit 1"])
    assert "x.cpp:1: error: no such thing" in caught.value.what
    assert caught.value.fix == ""


def test_a_full_disk_is_named(build: Build) -> None:
    with pytest.raises(BuildFailed, match="free space there"):
        build(script=["echo 'as: x.o: No space left on device'", "seq 100", "exit 1"])


def test_a_failing_recipe_test_is_shown_and_nothing_is_published(
    build: Build, tmp_path: Path
) -> None:
    with pytest.raises(BuildFailed) as caught:
        build(test="echo seen by the test && exit 1")
    assert "testing libtoy-2.5-cpu_0.conda" in str(caught.value) or "1 of 1" in str(caught.value)
    assert "seen by the test" in str(caught.value)
    assert published(tmp_path) == []


def test_a_rebuild_is_tested_with_its_own_tests(build: Build) -> None:
    build()
    build("toy")
    with pytest.raises(BuildFailed, match="tests of the recipe failed"):
        build(test="test -f $PREFIX/lib/nowhere.so")
    build()


def test_a_package_that_holds_the_build_prefix_is_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds the build prefix"):
        build(script=["mkdir -p $PREFIX/lib", "echo $PREFIX > $PREFIX/lib/libtoy.so"])
    assert published(tmp_path) == []


def test_an_unknown_output_is_named(build: Build) -> None:
    with pytest.raises(BuildFailed, match="not to one nothing"):
        build("nothing")


def test_a_missing_requirement_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="gxx_linux-64"):
        builder.build(
            write_recipe(tmp_path / "recipe", COMPILE),
            CPU,
            "libtoy",
            [],
            tmp_path / "channel",
            variant_keys={},
            environ={},
            work=tmp_path / "work",
        )


def test_the_users_environment_does_not_reach_the_build(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "leaked")
    monkeypatch.setenv("CXXFLAGS", "-DLEAKED")
    check = 'test -z "$SECRET_OF_THE_USER" -a -z "$CXXFLAGS"'
    assert build(script=[check, *COMPILE]).is_file()


def test_kill_9_leaves_no_compiler_and_nothing_published(channel: Path, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    recipe = write_recipe(tmp_path / "recipe", [f"echo $$ > {marker}", "sleep 100"])
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from flashinfer_build.compile import builder
        from flashinfer_build.label import Variant
        from flashinfer_build.variants import VariantSpec
        spec = VariantSpec(
            Variant(None, (2, 13)), "None", "2.13", "None", "14", "16", {CPU.common!r}
        )
        builder.build(
            Path({str(recipe)!r}), spec, "libtoy", [{channel.as_uri()!r}],
            Path({str(tmp_path / "channel")!r}),
            variant_keys={keys_of_this_machine()!r}, environ={{}},
            work=Path({str(tmp_path / "work")!r}),
            report=lambda line: print(line, flush=True),
        )
        """
    )
    scripts = str(Path(builder.__file__).parents[2])
    log = tmp_path / "log"
    with log.open("w") as stream:
        caller = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": scripts},
            stdout=stream,
            stderr=stream,
        )
        end = time.monotonic() + 60
        while not marker.is_file() or not marker.read_text().strip():
            assert time.monotonic() < end and caller.poll() is None, log.read_text()
            time.sleep(0.05)
        pid = int(marker.read_text())
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert published(tmp_path) == []


def test_the_compiler_cache_of_the_caller_is_handed_on(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "elsewhere" / "sccache"  # on no PATH that a build has
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("FLASHINFER_COMPILER_CACHE", str(program))
    monkeypatch.setenv("SCCACHE_DIR", str(tmp_path / "store"))
    names = ("FLASHINFER_COMPILER_CACHE", "SCCACHE_DIR")
    seen = " ".join(f"${{{{ env.get('{name}', default='') }}}}" for name in names)
    made = build(script=[*COMPILE, f"echo {seen} > $PREFIX/lib/seen"])
    package = conda_package.read(made)
    (content,) = (m.read() for m in package.payload() if m.path == "lib/seen")
    assert content.decode().split() == [str(program), str(tmp_path / "store")]
    monkeypatch.setenv("FLASHINFER_COMPILER_CACHE", str(tmp_path / "ccache"))
    with pytest.raises(ToolchainError, match="there is no"):
        build()


def test_driver_of_the_variant_is_assumed(tmp_path: Path) -> None:
    assert builder.subprocess_environ(tmp_path, cuda="13.0")["CONDA_OVERRIDE_CUDA"] == "13.0"
    assert "CONDA_OVERRIDE_CUDA" not in builder.subprocess_environ(tmp_path)
