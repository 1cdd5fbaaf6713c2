"""Conda channels as a provider: what is fetched, what is refused, whose login is used."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from conda_bridge.errors import ConfigError, ToolchainError
from conda_bridge.formats import conda_package
from conda_bridge.system import process
from flashinfer_build import bootstrap, toolchain
from flashinfer_build.compile import builder
from flashinfer_build.label import Variant
from flashinfer_build.toolchain import Request, Toolchain
from flashinfer_build.toolchain.channel import make_channel
from flashinfer_build.toolchain.channel_names import credentials, mask, resolve
from flashinfer_build.toolchain.conda import Conda
from flashinfer_build.toolchain.packages import PackageSpec, make

SECRET = "s3cret-Wort"
CPU = Request(Variant(None, (2, 6)), gxx_below=14)
CU126 = Request(Variant((12, 6), (2, 6)), gxx_below=14)
CU118 = Request(Variant((11, 8), (2, 6)), gxx_below=12)


def exports(*strong: str) -> dict[str, bytes]:
    return {"info/run_exports.json": json.dumps({"strong": strong}).encode()}


def gxx(version: str) -> PackageSpec:
    major = version.split(".", maxsplit=1)[0]
    made = exports(f"libstdcxx >={major}")
    return PackageSpec("gxx_linux-64", version, depends=("ninja",), info_files=made)


def nvcc(release: str, tools: str = "") -> list[PackageSpec]:
    exact = (f"cuda-version {release}.*",)
    tools = tools or f"{release}.85"
    major = int(release.split(".", maxsplit=1)[0])
    return [
        PackageSpec("cuda-version", release, noarch="generic", constrains=(f"__cuda >={major}",)),
        PackageSpec("cuda-nvcc", f"{release}.85", depends=(*exact, f"cuda-nvcc-tools {tools}")),
        PackageSpec("cuda-nvcc-tools", tools),
        PackageSpec("cuda-cudart-dev", f"{release}.77", depends=exact),
    ]


def torch(version: str, cuda: str = "", flavour: str = "", **more: object) -> PackageSpec:
    """As conda-forge names and binds its builds."""
    depends: tuple[str, ...] = ("python",)
    if cuda:
        depends += (f"cuda-version >={cuda},<{int(cuda.split('.', maxsplit=1)[0]) + 1}",)
    name = flavour or (f"cuda{cuda.replace('.', '')}_generic" if cuda else "cpu_generic")
    return PackageSpec("pytorch", version, depends=depends, flavour=name, **more)  # type: ignore[arg-type]


PLAIN = [PackageSpec(name, "23.0") for name in ("ninja", "packaging", "pip", "cuda-cccl")]
BASE = [
    *PLAIN,
    PackageSpec("setuptools", "75.0", noarch="generic"),
    PackageSpec("python", "3.12.4"),
    PackageSpec("libstdcxx", "13.1"),
    PackageSpec("libstdcxx", "15.1"),
    gxx("11.4.0"),
    gxx("13.3.0"),
    gxx("14.2.0"),
    PackageSpec("sysroot_linux-64", "2.17"),
    PackageSpec("sysroot_linux-64", "2.28"),
    PackageSpec("sysroot_linux-64", "2.39"),
    *nvcc("11.8"),
    *nvcc("12.4"),
    *nvcc("12.6"),
    torch("2.6.0"),
    torch("2.6.0", "11.8"),
    torch("2.6.0", "12.6"),
    torch("2.7.0", "12.8"),
]


def channel(folder: Path, specs: Sequence[PackageSpec]) -> Path:
    unique = {spec.key: spec for spec in specs}
    return make_channel([make(spec, folder) for spec in unique.values()], folder)


def without(*names: str) -> list[PackageSpec]:
    return [spec for spec in BASE if spec.name not in names]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel with all that the recipe asks for."""
    return channel(tmp_path_factory.mktemp("base"), BASE)


def conda(tmp_path: Path, *names: object, **environ: str) -> Conda:
    """A provider in a home of its own."""
    home = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    return Conda([str(name) for name in names], tmp_path / "cache", environ={**home, **environ})


def provided(provider: Conda, request: Request = CPU) -> Toolchain:
    return provider.provide(request, report=lambda _line: None)


def versions(lines: Sequence[str]) -> dict[str, str]:
    """name -> version, build of toolchain inputs."""
    stems = [line.split(" ")[0].rsplit("-", 2) for line in lines]
    return {name: f"{version} {build}" for name, version, build in stems}


# ---------------------------------------------------------------- names


def urls(*names: str, **environ: str) -> list[str]:
    return [item.url for item in resolve(names, environ)]


def test_a_name_is_a_url_a_path_or_a_word_for_the_alias(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert urls("conda-forge", "nvidia/label/cuda-11.8.0", HOME=home) == [
        "https://conda.anaconda.org/conda-forge",
        "https://conda.anaconda.org/nvidia/label/cuda-11.8.0",
    ]
    assert urls("https://example.org/forge/", "file:///x/y/") == [
        "https://example.org/forge",
        "file:///x/y",
    ]
    assert urls(str(tmp_path), "~/c", HOME=home) == [tmp_path.as_uri(), (tmp_path / "c").as_uri()]
    assert urls("a", "a", HOME=home) == ["https://conda.anaconda.org/a"]


def test_condas_own_configuration_makes_urls_of_words(tmp_path: Path) -> None:
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda/.condarc").write_text("channel_alias: https://one.example\n")
    (tmp_path / ".condarc").write_text(
        "channel_alias: https://${MIRROR_HOST}/conda\n"
        "custom_channels:\n  inner: https://inner.example/\n"
    )
    environ = {"HOME": str(tmp_path), "MIRROR_HOST": "mirror.example"}
    assert urls("conda-forge", "inner/label/dev", **environ) == [
        "https://mirror.example/conda/conda-forge",
        "https://inner.example/inner/label/dev",
    ]
    environ["CONDA_CHANNEL_ALIAS"] = "https://third.example/"
    assert urls("conda-forge", **environ) == ["https://third.example/conda-forge"]


@pytest.mark.parametrize("name", ["defaults", "local", "", "a b", "https://"])
def test_what_is_no_single_channel_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--channel"):
        resolve([name], {})


def test_a_condarc_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / ".condarc").write_text("channel_alias: [")
    with pytest.raises(ConfigError, match=r"\.condarc: cannot be read"):
        resolve(["conda-forge"], {"HOME": str(tmp_path)})


def test_secrets_are_split_off_a_url() -> None:
    both = resolve(
        [f"https://me:{SECRET}%21@a.example:8443/forge", f"https://b.example/t/{SECRET}/forge"], {}
    )
    assert [item.url for item in both] == [
        "https://a.example:8443/forge",
        "https://b.example/forge",
    ]
    assert credentials(both) == {
        "a.example": {"BasicHTTP": {"username": "me", "password": f"{SECRET}!"}},
        "b.example": {"CondaToken": SECRET},
    }
    assert SECRET not in repr(both)


def test_two_logins_for_one_host_are_refused_without_showing_them() -> None:
    both = resolve([f"https://me:{SECRET}@a.example/x", "https://you:pw@a.example/y"], {})
    with pytest.raises(ConfigError, match=r"two channels of a\.example") as caught:
        credentials(both)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"at https://me:{SECRET}@a.example/x: no", "at https://***@a.example/x: no"),
        (f"(https://a.example/t/{SECRET}/x/y)", "(https://a.example/t/***/x/y)"),
        (f"https://me:{SECRET}@a.example/t/{SECRET}", "https://***@a.example/t/***"),
        ("https://a.example/x@y/test/z", "https://a.example/x@y/test/z"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


# ---------------------------------------------------------------- what is solved and fetched


def test_the_cpu_variant(base: Path, tmp_path: Path) -> None:
    provider = conda(tmp_path, base)
    assert provider.missing(CPU) == ""
    tools = provided(provider)
    found = versions(tools.inputs)
    assert found["pytorch"].startswith("2.6.0 cpu_")
    assert found["gxx_linux-64"].startswith("13.3.0 ")  # the newest below 14
    assert found["sysroot_linux-64"].startswith("2.28 ")
    assert not any(name.startswith("cuda-") for name in found)
    assert all(re.fullmatch(r"\S+ [0-9a-f]{64}", line) for line in tools.inputs)
    assert (tools.provider, tools.torch_version, tools.variant_keys) == ("conda", "2.6.0", {})
    assert (tools.torch_importable, tools.trees) == (True, ())


def test_the_cuda_variant_and_what_its_kernels_are_compiled_from(
    base: Path, tmp_path: Path
) -> None:
    tools = provided(conda(tmp_path, base), CU126)
    found = versions(tools.inputs)
    assert found["pytorch"].startswith("2.6.0 cuda126_")
    assert found["cuda-nvcc"].startswith("12.6.85 ")
    kernels = versions(tools.compiler_inputs)
    assert {"cuda-nvcc", "cuda-cudart-dev", "cuda-cccl", "gxx_linux-64", "ninja"} <= set(kernels)
    assert not {"pytorch", "pip", "setuptools"} & set(kernels)
    assert set(tools.compiler_inputs) < set(tools.inputs)


def test_kernels_alone_need_no_torch(tmp_path: Path) -> None:
    path = channel(tmp_path / "made", without("pytorch", "pip", "setuptools"))
    request = replace(CU126, torch=False)
    provider = conda(tmp_path, path)
    assert provider.missing(request) == ""
    tools = provided(provider, request)
    assert (tools.torch_version, tools.torch_importable) == ("", False)
    assert tools.inputs == tools.compiler_inputs


def test_the_build_sees_what_was_solved_and_nothing_else(base: Path, tmp_path: Path) -> None:
    tools = provided(conda(tmp_path, base))
    [url] = tools.channels
    held = Path(url.removeprefix("file://"))
    assert held.is_relative_to(tmp_path / "cache")
    records = {}
    for subdir in ("linux-64", "noarch"):
        repodata = json.loads((held / subdir / "repodata.json").read_text())
        records.update({name: (subdir, item) for name, item in repodata["packages.conda"].items()})
    expected = {line.split()[0] + ".conda": line.split()[1] for line in tools.inputs}
    assert {name: item["sha256"] for name, (_, item) in records.items()} == expected
    for name, (subdir, item) in records.items():
        index = conda_package.read(held / subdir / name).index
        for key in ("name", "version", "build", "build_number", "depends", "subdir"):
            assert item[key] == index[key], (name, key)
        assert item.get("noarch") == index.get("noarch")


def test_what_the_compiler_exports_is_in_the_host_environment(base: Path, tmp_path: Path) -> None:
    tools = provided(conda(tmp_path, base))
    assert versions(tools.inputs)["libstdcxx"].startswith("15.1 ")
    newer = [*without("gxx_linux-64"), replace(gxx("13.3.0"), info_files=exports("libstdcxx >=16"))]
    with pytest.raises(ToolchainError, match="libstdcxx"):
        provided(conda(tmp_path, channel(tmp_path / "newer", newer)))


def test_a_second_channel_fills_in_but_does_not_override(base: Path, tmp_path: Path) -> None:
    first = channel(tmp_path / "first", [torch("2.6.1"), gxx("12.1.0")])
    found = versions(provided(conda(tmp_path, first, base)).inputs)
    assert found["pytorch"].startswith("2.6.1 ")
    assert found["gxx_linux-64"].startswith("12.1.0 ")
    # Strict: the first channel's only pytorch is for the CPU, so there is none for CUDA.
    assert "built for CUDA 12" in conda(tmp_path, first, base).missing(CU126)


def test_old_package_format(base: Path, tmp_path: Path) -> None:
    """A .tar.bz2 of the channel stays one in the build's channel."""
    import bz2
    import hashlib
    import io
    import tarfile

    path = tmp_path / "old"
    shutil.copytree(channel(tmp_path / "made", without("ninja")), path)
    index = {"name": "ninja", "version": "9.0", "build": "0", "build_number": 0, "depends": []}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in (("info/index.json", json.dumps(index)), ("info/paths.json", "{}")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    content = bz2.compress(stream.getvalue())
    (path / "linux-64/ninja-9.0-0.tar.bz2").write_bytes(content)
    repodata = json.loads((path / "linux-64/repodata.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    repodata["packages"]["ninja-9.0-0.tar.bz2"] = {**index, "subdir": "linux-64", "sha256": digest}
    (path / "linux-64/repodata.json").write_text(json.dumps(repodata))
    tools = provided(conda(tmp_path, path))
    assert f"ninja-9.0-0 {digest}" in tools.inputs
    held = Path(tools.channels[0].removeprefix("file://")) / "linux-64"
    assert list(json.loads((held / "repodata.json").read_text())["packages"]) == [
        "ninja-9.0-0.tar.bz2"
    ]
    assert (held / "ninja-9.0-0.tar.bz2").read_bytes() == content


def test_the_c_library(base: Path, tmp_path: Path) -> None:
    asked = provided(conda(tmp_path, base), replace(CPU, glibc="2.17"))
    assert asked.variant_keys == {"c_stdlib_version": "2.17"}
    assert versions(asked.inputs)["sysroot_linux-64"].startswith("2.17 ")
    assert "no sysroot_linux-64 2.31" in conda(tmp_path, base).missing(replace(CPU, glibc="2.31"))
    newer = [PackageSpec("sysroot_linux-64", version) for version in ("2.39", "2.34")]
    path = channel(tmp_path / "newer", [*without("sysroot_linux-64"), *newer])
    lines: list[str] = []
    tools = conda(tmp_path, path).provide(CPU, report=lines.append)
    assert tools.variant_keys == {"c_stdlib_version": "2.34"}
    assert "the channels have no sysroot_linux-64 2.28, using 2.34" in lines


def test_what_the_machines_own_settings_say_has_no_part(base: Path, tmp_path: Path) -> None:
    """The builder does not see them either."""
    provider = conda(tmp_path, base, CONDA_OVERRIDE_CUDA="99.0", CONDA_OVERRIDE_GLIBC="2.1")
    path = channel(
        tmp_path / "needs",
        [*without("pytorch"), replace(torch("2.6.0"), depends=("__cuda", "python"))],
    )
    assert provider.missing(CPU) == ""
    assert "__cuda" in conda(tmp_path, path, CONDA_OVERRIDE_CUDA="12.6").missing(CPU)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("request_", "left_out", "more", "said"),
    [
        (CU126, ["cuda-nvcc"], nvcc("12.4"), "no cuda-nvcc 12.6.* (there is 12.4.85)"),
        (CU126, ["pytorch"], [torch("2.5.1")], "no pytorch 2.6.* (there is 2.5.1)"),
        (CU126, ["pytorch"], [], "no pytorch 2.6.*"),
        (
            CU126,
            ["pytorch"],
            [torch("2.6.0", "11.8"), torch("2.6.0")],
            "no pytorch 2.6.* built for CUDA 12 (there is one for CUDA 11, no CUDA)",
        ),
        (
            CPU,
            ["pytorch"],
            [torch("2.6.0", "12.6")],
            "built for no CUDA (there is one for CUDA 12)",
        ),
        (
            CPU,
            ["pytorch"],
            [torch("2.6.0", flavour="cuda_py312")],
            "built for no CUDA (there is one for an unknown CUDA)",
        ),
        (CU118, ["gxx_linux-64"], [gxx("13.3.0")], "no gxx_linux-64 <12 (there is 13.3.0)"),
        (CPU, ["sysroot_linux-64"], [], "no sysroot_linux-64 2.28.*"),
        (
            CU126,
            ["cuda-nvcc", "cuda-nvcc-tools", "cuda-version"],
            nvcc("12.6", tools="12.4.131"),
            "cuda-nvcc-tools in the environment of libflashinfer build is 12.4.131, not 12.6",
        ),
        (
            CPU,
            ["pytorch"],
            [replace(torch("2.6.0"), depends=("nowhere",))],
            "the host environment of flashinfer cannot be put together",
        ),
    ],
)
def test_what_the_channels_lack_is_said_and_not_provided(
    tmp_path: Path, request_: Request, left_out: list[str], more: list[PackageSpec], said: str
) -> None:
    path = channel(tmp_path / "made", [*without(*left_out), *more])
    provider = conda(tmp_path, path)
    assert said in provider.missing(request_)
    with pytest.raises(ToolchainError, match=re.escape(said)):
        provided(provider, request_)
    assert not (tmp_path / "cache/channels").exists()


@pytest.mark.parametrize(
    ("spec", "cuda"),
    [
        (torch("2.6.0", flavour="cuda126_mkl_py312"), "12"),
        (torch("2.6.0", flavour="cuda118_generic"), "11"),
        (torch("2.6.0", flavour="cuda130_generic"), "13"),
        (torch("2.6.0", flavour="py3.12_cuda12.4_cudnn9.1.0"), "12"),
        (torch("2.6.0", flavour="py3.12_cpu"), "none"),
        (replace(torch("2.6.0"), depends=("pytorch-cuda >=12.4,<12.5",)), "12"),
        (replace(torch("2.6.0"), depends=("cudatoolkit 11.8.*",)), "11"),
        (torch("2.6.0", flavour="gpu_py312"), "unknown"),
    ],
)
def test_for_which_cuda_a_torch_was_built(tmp_path: Path, spec: PackageSpec, cuda: str) -> None:
    (tmp_path / "index.json").write_text(json.dumps(spec.index()))
    program = (
        "import sys, os; from rattler import PackageRecord\n"
        "from flashinfer_build.toolchain.channel_records import built_for\n"
        "print(built_for(PackageRecord.from_index_json(sys.argv[1])), flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "index.json")],
        env={**os.environ, "PYTHONPATH": str(bootstrap.project_root() / "scripts")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == cuda, done.stderr


def test_a_package_with_other_bytes_is_refused_and_not_kept(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    shutil.copytree(base, path)
    [package] = path.glob("linux-64/pytorch-2.6.0-cpu*.conda")
    package.write_bytes(package.read_bytes()[:-1] + b"x")
    with pytest.raises(ToolchainError, match=r"pytorch-2\.6\.0-cpu.* has the sha256") as caught:
        provided(conda(tmp_path, path))
    assert path.as_uri() in caught.value.where
    assert not list((tmp_path / "cache/conda").rglob("pytorch*"))
    package.unlink()
    shutil.copyfile(base / "linux-64" / package.name, package)
    provided(conda(tmp_path, path))


def test_a_package_that_was_damaged_in_the_cache_is_fetched_again(
    base: Path, tmp_path: Path
) -> None:
    first = provided(conda(tmp_path, base))
    [kept] = (tmp_path / "cache/conda").rglob("pytorch-2.6.0-cpu*.conda")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"x")  # and with it, by a hard link, what the channel has
    assert provided(conda(tmp_path, base)).channels == first.channels
    assert kept.read_bytes() == whole
    [again] = (tmp_path / "cache/channels").rglob(kept.name)
    assert again.read_bytes() == whole


@pytest.mark.parametrize("name", ["/nowhere/at/all", "http://127.0.0.1:9/forge"])
def test_a_channel_that_is_not_there_is_an_error_and_not_a_lack(
    base: Path, tmp_path: Path, name: str
) -> None:
    """Going on with the next provider would build from what was not asked for."""
    with pytest.raises(ToolchainError, match="cannot be read") as caught:
        conda(tmp_path, base, name).missing(CPU)
    assert name in caught.value.where


def test_an_environment_for_a_cuda_torch_is_made_where_there_is_no_driver(tmp_path: Path) -> None:
    """conda-forge's CUDA builds ask for ``__cuda``: it says the variant's CUDA while trying out."""
    needs = replace(torch("2.6.0", "12.6"), depends=("__cuda >=12.6",))
    asked = {
        "channels": [channel(tmp_path / "made", [needs]).as_uri()],
        "specs": ["pytorch"],
        "prefix": str(tmp_path / "prefix"),
    }
    (tmp_path / "install.json").write_text(json.dumps(asked))
    command = [
        sys.executable,
        "-m",
        "flashinfer_build.tryout.install_worker",
        str(tmp_path / "install.json"),
    ]
    for cuda, code in (("12.4", 1), ("12.6", 0)):
        environ = builder.subprocess_environ(tmp_path / "cache", cuda=cuda)
        done = process.run([*command, str(tmp_path / "answer.json")], environ=environ)
        assert done.code == code, "\n".join(done.tail)


# ---------------------------------------------------------------- what changes


def test_a_changed_channel_changes_inputs_and_state(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "forge"
    shutil.copytree(base, path)
    before = provided(conda(tmp_path, path))
    state = conda(tmp_path, path).state(CPU)
    assert conda(tmp_path, path).state(CPU) == state
    shutil.rmtree(path)
    shutil.copytree(channel(tmp_path / "made", [*BASE, PackageSpec("python", "3.13.0")]), path)
    after = provided(conda(tmp_path, path))
    assert versions(after.inputs)["python"].startswith("3.13.0 ")
    assert set(after.inputs) != set(before.inputs)
    assert conda(tmp_path, path).state(CPU) != state


def test_channels_come_first_and_what_they_lack_is_reported(base: Path, tmp_path: Path) -> None:
    among = toolchain.providers(tmp_path / "cache", [str(base)])
    assert [provider.name for provider in among][:2] == ["conda", "pypi"]
    assert toolchain.supply(CPU, among).provider == "conda"
    assert toolchain.state(CPU, among)

    class Other:
        name = "other"

        def missing(self, request: Request) -> str:
            return ""

        def provide(self, request: Request, *, report: toolchain.Report) -> Toolchain:
            return Toolchain(request.variant, self.name, (), {}, "", False, (), (), ())

    lines: list[str] = []
    request = Request(Variant((13, 0), (2, 13)))
    made = toolchain.provide(request, [among[0], Other()], report=lines.append)
    assert made.provider == "other"
    assert any(line.startswith("conda: no ") for line in lines)
    assert toolchain.state(request, [among[0], Other()]) == ""


# ---------------------------------------------------------------- logins and mirrors


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a channel below /open, and behind a login below /basic, /bearer and /t/TOKEN/."""

    def do_GET(self) -> None:
        self._checked(super().do_GET)

    def do_HEAD(self) -> None:
        self._checked(super().do_HEAD)

    def _checked(self, answer: object) -> None:
        given = self.headers.get("Authorization")
        basic = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
        wanted = {"basic": basic, "bearer": f"Bearer {SECRET}", "open": given}
        token, path = f"/t/{SECRET}", re.sub("^http://[^/]+", "", self.path)  # as a proxy is asked
        if path.startswith(token):
            path = path.removeprefix(token)
            wanted["token"] = given
        _, kind, rest = path.split("/", 2)
        if kind not in wanted or wanted[kind] != given:
            self.send_error(401)
            return
        self.path = "/" + rest
        answer()  # type: ignore[operator]

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def address(base: Path) -> Iterator[str]:
    with served(base) as found:
        yield found


def written(folder: Path) -> list[Path]:
    """The files below `folder` in which the secret stands."""
    secrets = (SECRET.encode(), base64.b64encode(f"me:{SECRET}".encode()))
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]


BASIC = {"127.0.0.1": {"BasicHTTP": {"username": "me", "password": SECRET}}}


@pytest.mark.parametrize(
    ("path", "files", "environ"),
    [
        ("http://{}/open", {}, {}),
        (f"http://me:{SECRET}@{{}}/basic", {}, {}),
        (f"http://{{}}/t/{SECRET}/token", {}, {}),
        ("http://{}/basic", {"auth.json": json.dumps(BASIC)}, {"RATTLER_AUTH_FILE": "auth.json"}),
        ("http://{}/basic", {"home/.rattler/credentials.json": json.dumps(BASIC)}, {}),
        (
            "http://{}/bearer",
            {"auth.json": json.dumps({"127.0.0.1": {"BearerToken": SECRET}})},
            {"RATTLER_AUTH_FILE": "auth.json"},
        ),
        (
            "http://{}/basic",
            {"home/.netrc": f"machine 127.0.0.1\nlogin me\npassword {SECRET}\n"},
            {},
        ),
        (
            # A login in the URL stands beside the user's own file, and wins there.
            f"http://me:{SECRET}@{{}}/basic",
            {"auth.json": json.dumps({"127.0.0.1": {"BearerToken": "other"}})},
            {"RATTLER_AUTH_FILE": "auth.json"},
        ),
        (
            f"http://me:{SECRET}@{{}}/basic",
            {
                "home/.config/rattler/config.toml": "authentication-override-file = '~/auth.json'",
                "home/auth.json": json.dumps({"127.0.0.1": {"BearerToken": "other"}}),
            },
            {},
        ),
    ],
    ids=["open", "basic", "token", "auth-file", "home", "bearer", "netrc", "both", "override"],
)
def test_every_way_to_log_in(
    address: str, tmp_path: Path, path: str, files: Mapping[str, str], environ: Mapping[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = {name: str(tmp_path / value) for name, value in environ.items()}
    lines: list[str] = []
    provider = conda(tmp_path, path.format(address), **paths)
    tools = provider.provide(CPU, report=lines.append)
    assert tools.torch_version == "2.6.0"
    assert SECRET not in "\n".join([*lines, *tools.inputs, *tools.channels])
    assert written(tmp_path / "cache") == []


def test_a_mirror_of_rattlers_configuration(address: str, tmp_path: Path) -> None:
    config = tmp_path / "home/.config/rattler/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[mirrors]\n"https://forge.example/x" = ["http://{address}/open"]\n')
    assert conda(tmp_path, "https://forge.example/x").missing(CPU) == ""
    assert provided(conda(tmp_path, "https://forge.example/x")).torch_version == "2.6.0"


@pytest.mark.parametrize(("host", "fits"), [("forge.example", True), ("127.0.0.1", False)])
def test_a_mirror_is_asked_with_the_login_of_the_channel(
    address: str, tmp_path: Path, host: str, fits: bool
) -> None:
    """rattler's rule, which docs/conda-channels.md states."""
    home = tmp_path / "home"
    (home / ".config/rattler").mkdir(parents=True)
    (home / ".config/rattler/config.toml").write_text(
        f'[mirrors]\n"https://forge.example/x" = ["http://{address}/basic"]\n'
    )
    (home / ".netrc").write_text(f"machine {host}\nlogin me\npassword {SECRET}\n")
    provider = conda(tmp_path, "https://forge.example/x")
    if fits:
        assert provider.missing(CPU) == ""
    else:
        with pytest.raises(ToolchainError, match="401"):
            provider.missing(CPU)


@pytest.mark.parametrize("how", ["environment", "configuration"])
def test_a_proxy(address: str, tmp_path: Path, how: str) -> None:
    """The server answers for any host, as a proxy does."""
    proxy = f"http://{address}"
    environ = {}
    if how == "environment":
        environ["HTTP_PROXY"] = proxy
    else:
        config = tmp_path / "home/.config/rattler/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[proxy-config]\nhttp = "{proxy}"\n')
    assert conda(tmp_path, "http://forge.example/open", **environ).missing(CPU) == ""


@pytest.mark.parametrize("login", [f"me:wrong{SECRET}@", ""])
def test_a_refused_login_ends_the_program_and_names_the_channel(
    address: str, tmp_path: Path, root: Path, login: str
) -> None:
    wrong = f"http://{login}{address}/basic"
    build = root / "scripts" / "build.py"
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "FLASHINFER_CACHE_DIR": str(tmp_path / "cache"),
        "FLASHINFER_NO_BOOTSTRAP": "1",
    }
    output = str(tmp_path / "dist")
    for words in (["--list"], ["--variant", "cpu_torch26", "-o", output], ["--json", "--list"]):
        done = subprocess.run(
            [sys.executable, str(build), "--channel", wrong, *words],
            capture_output=True,
            text=True,
            env=environ,
            cwd=tmp_path,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert f"http://{address}/basic" in said
        assert "401" in said
        assert "~/.rattler/credentials.json" in said
        assert SECRET not in said
        assert "Traceback" not in said
    assert not Path(output).exists()
    assert written(tmp_path) == []
    assert written(root / "build" / "logs") == []


def test_list_shows_what_the_channel_supplies(base: Path, tmp_path: Path, root: Path) -> None:
    environ = {**os.environ, "FLASHINFER_CACHE_DIR": str(tmp_path), "FLASHINFER_NO_BOOTSTRAP": "1"}
    done = subprocess.run(
        [
            sys.executable,
            str(root / "scripts/build.py"),
            "--list",
            "--json",
            "--channel",
            str(base),
        ],
        capture_output=True,
        text=True,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads(done.stdout)}
    for variant in ("cpu_torch26", "cu118_torch26", "cu124_torch26", "cu126_torch26"):
        assert rows[variant]["provider"] == "conda", rows[variant]
    assert "pytorch 2.7.*" in rows["cu126_torch27"]["missing"]
    assert rows["cu124_torch24"]["provider"] == "debian"
    assert rows["cpu_torch213"]["provider"] == "pypi"


# ---------------------------------------------------------------- a real channel


def test_the_projects_own_channel_over_http_with_a_login(tmp_path: Path) -> None:
    """The real packages that every test build is made with, asked for as a user's channel."""
    request = Request(Variant(None, (2, 13)), gxx_below=16, importable=True)
    made = toolchain.provide(request, toolchain.providers())
    held = Path(made.channels[0].removeprefix("file://"))
    with served(held) as at:
        provider = conda(tmp_path, f"http://me:{SECRET}@{at}/basic")
        assert provider.missing(request) == ""
        tools = provided(provider, request)
    assert made.torch_version.startswith(tools.torch_version)
    assert tools.variant_keys["c_stdlib_version"] == made.variant_keys["c_stdlib_version"]
    compiler = made.variant_keys["cxx_compiler_version"]
    assert versions(tools.compiler_inputs)["gxx_linux-64"].startswith(f"{compiler}.")
    names = {conda_package.read(path).name for path in held.rglob("*.conda")}
    assert set(versions(tools.inputs)) <= names
    assert written(tmp_path) == []
