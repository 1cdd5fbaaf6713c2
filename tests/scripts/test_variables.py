"""variables: what people set for a build is honoured, or refused in words, or named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from conda_bridge.errors import BridgeError, ConfigError, ToolchainError
from flashinfer_build.compile import compiler_cache, measure, native, project, variables
from flashinfer_build.compile.measure import Nvcc

PATH = os.environ["PATH"]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "source-build.md"


@pytest.fixture
def nvcc(tmp_path: Path) -> Nvcc:
    """One that knows 7.5 to 9.0."""
    path = tmp_path / "nvcc"
    path.write_text("#!/bin/sh\nprintf 'compute_75\\ncompute_80\\ncompute_86\\ncompute_90\\n'\n")
    path.chmod(0o755)
    return Nvcc(path, tmp_path, "12.4.131", (12, 4))


def program(folder: Path, name: str, text: str = 'exec g++ "$@"') -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "8.0+PTX;9.0a"),
        ({"FLASHINFER_CUDA_ARCH_LIST": "8.6, 9.0a"}, "8.6, 9.0a"),
        ({"TORCH_CUDA_ARCH_LIST": "8.0 8.6+PTX"}, "8.0;8.6+PTX"),
        ({"TORCH_CUDA_ARCH_LIST": "Ampere;Hopper+PTX"}, "8.0;8.6;9.0+PTX"),
        ({"CUDAARCHS": "80-real;90"}, "8.0;9.0+PTX"),
        ({"CMAKE_CUDA_ARCHITECTURES": "90a-real"}, "9.0a"),
        ({"CMAKE_CUDA_ARCHITECTURES": "120-real"}, "12.0"),
        # Ours outranks torch's, torch's CMake's; nothing but blanks is not set.
        ({"FLASHINFER_CUDA_ARCH_LIST": "9.0", "TORCH_CUDA_ARCH_LIST": "7.5"}, "9.0"),
        ({"TORCH_CUDA_ARCH_LIST": "8.9", "CUDAARCHS": "native"}, "8.9"),
        (
            {"FLASHINFER_CUDA_ARCH_LIST": "", "TORCH_CUDA_ARCH_LIST": " ", "CUDAARCHS": "86-real"},
            "8.6",
        ),
    ],
)
def test_architectures_of_every_notation(environ: dict[str, str], expected: str) -> None:
    assert variables.arch_list(environ) == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FLASHINFER_CUDA_ARCH_LIST", "80", "is not a CUDA architecture"),
        ("TORCH_CUDA_ARCH_LIST", "sm_80", "is not a CUDA architecture"),
        ("TORCH_CUDA_ARCH_LIST", "7.5", "compute capability 8.0"),
        ("TORCH_CUDA_ARCH_LIST", "7.5 8.0 9.0+PTX", "8.0;9.0+PTX"),
        ("TORCH_CUDA_ARCH_LIST", "Turing", "compute capability 8.0"),
        ("FLASHINFER_CUDA_ARCH_LIST", "12.0", "does not know 12.0"),
        ("CUDAARCHS", "native", "cannot be used here"),
        ("CUDAARCHS", "80-virtual", "cannot be used here"),
        ("CMAKE_CUDA_ARCHITECTURES", "all-major", "cannot be used here"),
    ],
)
def test_architectures_that_cannot_be_compiled_for_stop(
    nvcc: Nvcc, variable: str, value: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        variables.check_archs({variable: value}, nvcc)
    assert words in str(caught.value)
    assert variable in str(caught.value)


@pytest.mark.parametrize("value", ["0", "-3", "many", "2.5", "٣"])
def test_max_jobs_is_a_number_of_jobs(value: str) -> None:
    with pytest.raises(ConfigError, match="MAX_JOBS"):
        variables.max_jobs({"MAX_JOBS": value})


def test_max_jobs_may_be_empty_or_spaced() -> None:
    assert variables.max_jobs({"MAX_JOBS": ""}) is None
    assert variables.max_jobs({"MAX_JOBS": " 4 "}) == 4


def test_a_compiler_is_found_by_cxx_or_beside_cc(tmp_path: Path) -> None:
    tools = tmp_path / "it's a {folder}, $really"
    cxx = program(tools, "x86_64-odd-linux-gnu-g++-12")
    program(tools, "x86_64-odd-linux-gnu-gcc-12")
    for environ in (
        {"CXX": str(cxx)},
        {"CC": str(cxx.with_name("x86_64-odd-linux-gnu-gcc-12"))},
        {"CXX": cxx.name, "PATH": f"{tools}:{PATH}"},
        {"CC": "x86_64-odd-linux-gnu-gcc-12", "PATH": f"{tools}:{PATH}"},
    ):
        found = variables.find_cxx({"PATH": PATH, **environ})
        assert (found.path, found.arguments) == (cxx, ())
    found = variables.find_cxx({"PATH": PATH, "CXX": "g++ -m64 '-DA=b c'"})
    assert found.arguments == ("-m64", "-DA=b c")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"CXX": "no-such-g++"}, "apt install"),
        ({"CXX": "g++ 'half"}, "CXX"),
        ({"CXX": "ccache g++"}, "FLASHINFER_COMPILER_CACHE"),
        ({"CXX": "true"}, "no C++ compiler that works"),
        ({"CC": "tcc"}, "set CXX"),
        ({"CC": "no-such-gcc"}, "no C++ compiler 'no-such-g++'"),
        ({"PATH": ""}, "apt install"),
    ],
)
def test_what_is_no_compiler_stops(environ: dict[str, str], words: str) -> None:
    with pytest.raises(BridgeError) as caught:
        variables.find_cxx({"PATH": PATH, **environ})
    assert words in str(caught.value)


def test_clang_is_refused_in_words(tmp_path: Path) -> None:
    clang = program(tmp_path, "clang++", "echo '#define __GNUC__ 4\n#define __clang__ 1'")
    with pytest.raises(ToolchainError, match="this is clang"):
        variables.find_cxx({"PATH": PATH, "CXX": str(clang)})


def test_flags_of_the_c_compiler_serve_where_there_are_no_others() -> None:
    environ = {"CPPFLAGS": "-DA", "CFLAGS": "-O1", "LDFLAGS": "-L'/a b'"}
    assert variables.compile_flags(environ) == ["-DA", "-O1"]
    assert variables.compile_flags({**environ, "CXXFLAGS": "-O2"}) == ["-DA", "-O2"]
    assert variables.link_flags(environ) == ["-L/a b"]
    with pytest.raises(ConfigError, match="LDFLAGS"):
        variables.link_flags({"LDFLAGS": '"'})


@pytest.mark.parametrize("flag", ["-D_GLIBCXX_USE_CXX11_ABI=0", "-D_GLIBCXX_USE_CXX11_ABI=1"])
def test_another_abi_than_torchs_stops(flag: str) -> None:
    cxx = variables.Cxx(Path("/g++"))
    torch = flag.endswith("1")
    variables.check_abi({"CXXFLAGS": flag}, cxx, torch)
    for environ, compiler in (
        ({"CXXFLAGS": f"-O2 {flag}"}, cxx),
        ({"CPPFLAGS": flag}, cxx),
        ({"CFLAGS": flag}, cxx),
        ({}, variables.Cxx(Path("/g++"), (flag,))),
    ):
        with pytest.raises(ConfigError, match="another ABI"):
            variables.check_abi(environ, compiler, not torch)


@pytest.mark.parametrize("variable", ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"])
@pytest.mark.parametrize(
    "flags",
    [
        "-gencode arch=compute_80,code=sm_80",
        "-O3 -arch=sm_90",
        "--gpu-architecture sm_90",
        "-code=sm_80",
        "-ccbin=/nowhere/g++",
        "-ccbin clang++",
    ],
)
def test_flags_for_nvcc_that_belie_the_label_stop(variable: str, flags: str) -> None:
    cxx = variables.find_cxx({"PATH": PATH})
    with pytest.raises(ConfigError, match=variable):
        variables.check_nvcc_flags({"PATH": PATH, variable: flags}, cxx)


def test_a_host_compiler_has_to_be_the_compiler(tmp_path: Path) -> None:
    cxx = variables.find_cxx({"PATH": PATH})
    other = program(tmp_path, "g++-99")
    for variable in ("CUDAHOSTCXX", "NVCC_CCBIN"):
        variables.check_nvcc_flags({"PATH": PATH, variable: str(cxx.path)}, cxx)
        variables.check_nvcc_flags({"PATH": PATH, variable: str(cxx.path.parent)}, cxx)
        variables.check_nvcc_flags({"PATH": PATH, variable: "gcc"}, cxx)
        with pytest.raises(ConfigError, match=variable):
            variables.check_nvcc_flags({"PATH": PATH, variable: str(other)}, cxx)
    variables.check_nvcc_flags({"PATH": PATH, "NVCC_PREPEND_FLAGS": f"-ccbin={cxx.path}"}, cxx)
    variables.check_nvcc_flags({"PATH": PATH, "NVCC_APPEND_FLAGS": "-lineinfo"}, cxx)


@pytest.mark.parametrize("letter", ['"', "$", "`"])
def test_paths_that_nvcc_hands_to_a_shell(letter: str) -> None:
    """Tried with nvcc 13.0: these fail in its shell, the others below work."""
    odd = f"/x/a{letter}b"
    for environ, folder in (({}, Path(odd)), ({"TMPDIR": odd}, Path("/x"))):
        with pytest.raises(ConfigError, match="nvcc"):
            variables.check_nvcc_paths(environ, folder)
    variables.check_nvcc_paths({"TMPDIR": "/a b'c"}, Path("/a b'c {d};&(e)[f] ü#%,~\\"))


def test_what_has_no_part_is_named(nvcc: Nvcc) -> None:
    environ = {"TORCH_CUDA_ARCH_LIST": "8.0", "CUDAARCHS": "80", "NVCC_THREADS": "4"}
    of_cpu, of_cuda = variables.notes(environ, None), variables.notes(environ, nvcc)
    assert [line.split()[0] for line in of_cpu] == ["NVCC_THREADS", *environ][:3]
    assert [line.split()[0] for line in of_cuda] == ["NVCC_THREADS", "CUDAARCHS"]
    assert variables.notes({}, nvcc) == []


def test_every_variable_that_decides_something_is_in_the_docs() -> None:
    """Whatever is looked up in the environment, by a name in the source or in a table of names."""
    looked_up = {name for names in _tables(variables, measure) for name in names}
    for module in (variables, measure, project, native, compiler_cache):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        looked_up |= set(
            re.findall(r'(?:environ(?:\.get\(|\[)|_flag\([a-z.]+, )"([A-Z_0-9]+)"', text)
        )
        looked_up |= set(re.findall(r'words\("([A-Z_0-9]+)"', text))
    assert {"NVCC", "CUDA_HOME", "CXX", "LDFLAGS", "FORCE_CUDA", "NVCC_CCBIN"} <= looked_up
    told = DOCS.read_text(encoding="utf-8")
    ours = {"PATH", "XDG_CACHE_HOME", "SCCACHE_SERVER_UDS"}  # everybody's, and what is set for one
    assert sorted(name for name in looked_up - ours if f"`{name}" not in told) == []


TABLES = ("ARCH_VARIABLES", "_NO_PART", "_NVCC_FLAGS", "_FLAGS", "_HOSTS", "PROGRAMS", "TOOLKITS")


def _tables(*modules: object) -> list[Iterable[str]]:
    found: list[Iterable[str]] = []
    for module in modules:
        found += [getattr(module, name) for name in TABLES if hasattr(module, name)]
    return found


def test_what_has_no_part_in_packages_is_named_in_one_line() -> None:
    assert variables.without_part_in_packages({"CXX": "g++", "CUDA_HOME": ""}) == []
    environ = {"CUDA_HOME": "/c", "TORCH_CUDA_ARCH_LIST": "8.0", "LDFLAGS": "-s", "PATH": "/bin"}
    [line] = variables.without_part_in_packages(environ)
    assert line.startswith("CUDA_HOME, TORCH_CUDA_ARCH_LIST, LDFLAGS: ")


def test_nothing_set_is_fine() -> None:
    assert variables.max_jobs({}) is None
    assert variables.compile_flags({}) == variables.link_flags({}) == []
