"""Trying out: a toy flashinfer in clean environments, and checks that notice wrong results."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import label_of
from wheel_factory import make_wheel

from conda_bridge.errors import TestsFailed, ToolchainError
from conda_bridge.formats.conda_writer import PackageFile, write
from conda_bridge.publish import index
from flashinfer_build.label import Label
from flashinfer_build.toolchain import Toolchain, system
from flashinfer_build.toolchain.channel import make_channel
from flashinfer_build.toolchain.lock import LockedWheel
from flashinfer_build.toolchain.packages import make
from flashinfer_build.toolchain.unpacked import unpack
from flashinfer_build.toolchain.wheels import linked_torch_package, python_wheel_package
from flashinfer_build.tryout import install

LABEL = label_of("cpu_torch213")
# Stands for try_ops.py, with the same arguments and the same last line.
OPS = """
import json, sys, torch, flashinfer
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert flashinfer.__file__.startswith(args["--prefix"]), flashinfer.__file__
if flashinfer.broken:
    sys.exit("rmsnorm float16 on cpu: error 3")
print(json.dumps({"version": flashinfer.__version__, "torch": torch.__version__,
                  "devices": ["cpu"], "checks": {"rmsnorm float16 on cpu": 0.0},
                  "prefix": sys.prefix}))
"""


def package_source(label: Label, broken: bool) -> str:
    return f"import torch\n__version__ = {label.wheel_version!r}\nbroken = {broken}\n"


def pip_tree(folder: Path) -> tuple[LockedWheel, Path]:
    """The pip of this environment, as an unpacked wheel."""
    distribution = importlib.metadata.distribution("pip")
    site = folder / "pip-tree" / "site"
    for name in ("pip", f"pip-{distribution.version}.dist-info"):
        source = Path(str(distribution.locate_file(name)))
        shutil.copytree(source, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    return LockedWheel(f"pip-{distribution.version}-py3-none-any.whl", "0" * 64), site.parent


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """Python, pip and a toy torch."""
    folder = tmp_path_factory.mktemp("tools")
    cache = folder / "cache"
    path, torch_wheel = make_wheel(
        folder, "torch", "2.13.0+cpu", files={"torch.py": "__version__ = '2.13.0+cpu'\n"}
    )
    torch_tree = unpack(path, torch_wheel, cache)
    numpy_path, numpy = make_wheel(folder, "numpy")
    trees = dict([(numpy, unpack(numpy_path, numpy, cache)), pip_tree(folder)])
    specs = [
        system.python_package(),
        linked_torch_package(torch_wheel, torch_tree, (), None),
        *(python_wheel_package(wheel, tree) for wheel, tree in trees.items()),
    ]
    channel = make_channel([make(spec, cache) for spec in specs], cache)
    in_venv = (torch_tree, *trees.values())
    return Toolchain(
        LABEL.variant, "toy", (channel.as_uri(),), {}, "2.13.0+cpu", True, in_venv, (), ()
    )


class Stage:
    """Toy packages of one label, and the calls that try them."""

    def __init__(self, tools: Toolchain, folder: Path) -> None:
        self.tools = tools
        self.folder = folder

    def add_conda(self, *, broken: bool = False, depends: str = "pytorch 2.13.*") -> None:
        record = "Metadata-Version: 2.1\nName: flashinfer\nVersion: " + LABEL.wheel_version
        site = "site-packages/flashinfer"
        write(
            self.folder / "channel/noarch" / LABEL.conda_file,
            index={
                "name": "flashinfer",
                "version": LABEL.conda_version,
                "build": LABEL.conda_build,
                "build_number": 0,
                "depends": ["python >=3.8", depends],
                "subdir": "noarch",
                "noarch": "python",
            },
            files=[
                PackageFile(f"{site}/__init__.py", package_source(LABEL, broken).encode()),
                PackageFile(f"{site}-{LABEL.wheel_version}.dist-info/METADATA", record.encode()),
            ],
            level=1,
        )
        index.update_channel(self.folder / "channel", replace=True)

    def add_wheel(self, *, broken: bool = False, requires: str = "torch==2.13.*") -> None:
        path, _ = make_wheel(
            self.folder / "wheels",
            "flashinfer",
            LABEL.wheel_version,
            files={"flashinfer/__init__.py": package_source(LABEL, broken)},
            requires=[requires],
        )
        page = self.folder / "index" / LABEL.index_dir / "flashinfer" / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f'<a href="/wheels/{path.name.replace("+", "%2B")}">{path.name}</a>')

    def try_conda(self, tools: Toolchain | None = None) -> install.Tried:
        return install.in_conda(
            self.folder / "channel",
            tools or self.tools,
            LABEL,
            work=self.folder / "work",
        )

    def try_pip(self, tools: Toolchain | None = None) -> install.Tried:
        return install.in_venv(
            self.folder,
            tools or self.tools,
            LABEL,
            work=self.folder / "work",
        )


@pytest.fixture
def stage(tools: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    ops = tmp_path / "ops.py"
    ops.write_text(OPS)
    monkeypatch.setattr(install, "_OPS", ops)
    return Stage(tools, tmp_path)


def left_over(stage: Stage) -> list[str]:
    return [path.name for path in (stage.folder / "work").iterdir() if path.is_dir()]


def test_conda_package_is_installed_and_tried(stage: Stage) -> None:
    stage.add_conda()
    tried = stage.try_conda()
    assert tried.summary == "1 checks, torch 2.13.0+cpu on cpu"
    assert tried.version == LABEL.wheel_version
    assert left_over(stage) == []


def test_wheel_is_installed_from_the_index_and_tried(stage: Stage) -> None:
    stage.add_wheel()
    tried = stage.try_pip()
    assert tried.torch == "2.13.0+cpu"
    assert left_over(stage) == []


def test_wrong_results_are_shown_and_the_environment_stays(stage: Stage) -> None:
    stage.add_conda(broken=True)
    stage.add_wheel(broken=True)
    for attempt in (stage.try_conda, stage.try_pip):
        with pytest.raises(TestsFailed, match="rmsnorm float16 on cpu: error 3"):
            attempt()
    assert sorted(left_over(stage)) == ["try-conda-cpu_torch213", "try-pip-cpu_torch213"]


def test_a_rebuilt_package_is_installed_and_not_the_one_in_the_cache(stage: Stage) -> None:
    stage.add_conda()
    stage.try_conda()
    stage.add_conda(broken=True)
    with pytest.raises(TestsFailed, match="error 3"):
        stage.try_conda()


def test_packages_for_another_torch_do_not_install(stage: Stage) -> None:
    stage.add_conda(depends="pytorch 2.4.*")
    stage.add_wheel(requires="torch==2.4.*")
    with pytest.raises(TestsFailed, match=r"pytorch 2\.4"):
        stage.try_conda()
    with pytest.raises(TestsFailed, match=r"torch==2\.4"):
        stage.try_pip()


def test_without_unpacked_wheels_pip_gets_torch_as_the_users_pip_would(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a toolchain of conda packages: from the user's index, here a folder of wheels."""
    files = {"torch.py": "__version__ = '2.13.1'\n"}
    mirror = stage.folder / "mirror"
    make_wheel(mirror, "torch", "2.13.1", files=files)
    make_wheel(mirror, "torch", "2.14.0", files={"torch.py": "__version__ = '2.14.0'\n"})
    make_wheel(mirror, "numpy")
    stage.add_wheel()
    bare = replace(stage.tools, trees=())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(stage.folder / "nowhere"))
    with pytest.raises(TestsFailed, match=r"pip install torch==2\.13\.\*"):
        stage.try_pip(bare)
    monkeypatch.setenv("PIP_FIND_LINKS", str(mirror))
    assert stage.try_pip(bare).torch == "2.13.1"


def test_a_torch_without_its_libraries_is_refused(stage: Stage) -> None:
    light = replace(stage.tools, torch_importable=False)
    for attempt in (stage.try_conda, stage.try_pip):
        with pytest.raises(ToolchainError, match="without the libraries"):
            attempt(light)


# ---------------------------------------------------------------- the checks themselves


class PagedPrefill:
    """Causal attention over pages, by torch's own attention of every request."""

    def __init__(self, workspace: torch.Tensor) -> None:
        self.plans: list[tuple[slice, torch.Tensor, int]] = []

    def plan(
        self,
        starts: torch.Tensor,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last: torch.Tensor,
        *heads: int,
        causal: bool = True,
    ) -> None:
        page_size = heads[3]
        for b in range(len(last)):
            pages = indices[indptr[b] : indptr[b + 1]].long()
            length = (len(pages) - 1) * page_size + int(last[b])
            self.plans.append((slice(int(starts[b]), int(starts[b + 1])), pages, length))

    def run(self, q: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        outs = []
        for rows, pages, length in self.plans:
            k, v = cache[pages].float().transpose(0, 1).flatten(1, 2)[:, :length].transpose(1, 2)
            mine = q[rows].float().transpose(0, 1)
            sees = torch.ones(mine.shape[1], length, dtype=torch.bool)
            out = torch.nn.functional.scaled_dot_product_attention(
                mine,
                *(x.repeat_interleave(len(mine) // len(k), 0) for x in (k, v)),
                attn_mask=sees.tril(length - mine.shape[1]),
            )
            outs.append(out.transpose(0, 1))
        return torch.cat(outs).to(q.dtype)


class PagedDecode(PagedPrefill):
    """The same with one query for each request."""

    def plan(self, indptr: torch.Tensor, *rest: Any) -> None:
        super().plan(torch.arange(len(indptr)), indptr, *rest)

    def run(self, q: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        return super().run(q, cache)


class LatentDecode:
    """Latent attention over the pages of a plan, in fp32."""

    def __init__(self, workspace: torch.Tensor) -> None:
        self.plans: list[tuple[torch.Tensor, int]] = []

    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last: torch.Tensor,
        heads: int,
        dim: int,
        page_size: int,
        sm_scale: float,
    ) -> None:
        self.scale = sm_scale
        for b in range(len(last)):
            pages = indices[indptr[b] : indptr[b + 1]].long()
            self.plans.append((pages, (len(pages) - 1) * page_size + int(last[b])))

    def run(
        self, q_nope: torch.Tensor, q_pe: torch.Tensor, ckv: torch.Tensor, kpe: torch.Tensor
    ) -> torch.Tensor:
        outs = []
        turns = 1e4 ** (-torch.arange(32, dtype=torch.float32) / 32)
        for b, (pages, length) in enumerate(self.plans):
            angle = torch.arange(length)[:, None] * turns
            turn = torch.polar(torch.ones_like(angle), angle)
            k, k_pe = (cache[pages].float().flatten(0, 1)[:length] for cache in (ckv, kpe))
            k_turned = torch.view_as_complex(k_pe.view(length, 32, 2)) * turn
            q_turned = torch.view_as_complex(q_pe[b].float().view(-1, 32, 2)) * turn[-1]
            scores = q_nope[b].float() @ k.T + (q_turned @ k_turned.mH).real
            outs.append((scores * self.scale).softmax(-1) @ k)
        return torch.stack(outs).to(q_nope.dtype)


class SegmentProducts:
    """flashinfer's wrapper, a segment at a time."""

    def __init__(self, workspace: torch.Tensor) -> None: ...

    def run(
        self,
        x: torch.Tensor,
        weights: torch.Tensor,
        batch_size: int,
        column_major: bool,
        lengths: torch.Tensor,
        indptr: None,
        indices: torch.Tensor,
    ) -> torch.Tensor:
        matrices = weights.mT if column_major else weights
        parts = x.split(lengths.tolist())
        products = [
            part.double() @ matrices[int(index)].double()
            for part, index in zip(parts, indices, strict=True)
        ]
        return torch.cat(products).to(x.dtype)


def reference() -> types.ModuleType:
    """A flashinfer in plain torch, in the dtype of its input."""
    module = types.ModuleType("flashinfer")

    def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        norm = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return (norm * weight.float()).to(x.dtype)

    def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.float().chunk(2, -1)
        return (torch.nn.functional.silu(gate) * up).to(x.dtype)

    def apply_rope_pos_ids(
        q: torch.Tensor, k: torch.Tensor, pos_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        half = q.shape[-1] // 2
        turns = 1e4 ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = (pos_ids.float()[:, None] * turns)[:, None]

        def rotate(x: torch.Tensor) -> torch.Tensor:
            a, b = x.float().chunk(2, -1)
            parts = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
            return torch.cat(parts, -1).to(x.dtype)

        return rotate(q), rotate(k)

    def get_batch_indices_positions(
        indptr: torch.Tensor, lengths: torch.Tensor, nnz: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        counts = indptr.diff()
        batch = torch.repeat_interleave(torch.arange(len(lengths)), counts)
        return batch, torch.arange(nnz) + (lengths - indptr[1:])[batch]

    def append_paged_kv_cache(
        key: torch.Tensor,
        value: torch.Tensor,
        batch: torch.Tensor,
        positions: torch.Tensor,
        cache: torch.Tensor,
        indices: torch.Tensor,
        indptr: torch.Tensor,
        last: torch.Tensor,
    ) -> None:
        page = indices[indptr[batch] + positions // cache.shape[2]]
        cache[page, 0, positions % cache.shape[2]] = key
        cache[page, 1, positions % cache.shape[2]] = value

    def merge_state(
        v_a: torch.Tensor, s_a: torch.Tensor, v_b: torch.Tensor, s_b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        s = torch.logaddexp2(s_a, s_b)
        w_a, w_b = torch.exp2(s_a - s)[..., None], torch.exp2(s_b - s)[..., None]
        return (v_a.float() * w_a + v_b.float() * w_b).to(v_a.dtype), s

    def packbits(x: torch.Tensor, order: str) -> torch.Tensor:
        padded = torch.nn.functional.pad(x.int(), (0, -len(x) % 8)).view(-1, 8)
        places = torch.arange(8) if order == "little" else torch.arange(7, -1, -1)
        return (padded << places).sum(-1).to(torch.uint8)

    def top_p_renorm_probs(p: torch.Tensor, top_p: float) -> torch.Tensor:
        values, order = p.sort(dim=-1, descending=True)
        values = values * (values.cumsum(-1) - values < top_p)
        return torch.zeros_like(p).scatter_(-1, order, values / values.sum(-1, keepdim=True))

    def top_k_renorm_probs(p: torch.Tensor, top_k: int) -> torch.Tensor:
        kept = p * (p >= p.topk(top_k).values[:, -1:])
        return kept / kept.sum(-1, keepdim=True)

    def drawn(p: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        samples = torch.searchsorted(p.double().cumsum(-1), u.double()[:, None], right=True)
        return samples[:, 0].int(), torch.ones_like(u, dtype=torch.bool)

    def top_p_sampling_from_probs(
        p: torch.Tensor, u: torch.Tensor, top_p: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return drawn(top_p_renorm_probs(p, top_p), u)

    def top_k_sampling_from_probs(
        p: torch.Tensor, u: torch.Tensor, top_k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return drawn(top_k_renorm_probs(p, top_k), u)

    def bmm_fp8(
        a: torch.Tensor,
        b: torch.Tensor,
        a_scale: torch.Tensor,
        b_scale: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        scales = (a_scale * b_scale).double().view(-1, 1, 1)
        return (torch.bmm(a.double(), b.double()) * scales).to(dtype)

    module.SegmentGEMMWrapper = SegmentProducts  # type: ignore[attr-defined]
    module.BatchPrefillWithPagedKVCacheWrapper = PagedPrefill  # type: ignore[attr-defined]
    module.BatchDecodeWithPagedKVCacheWrapper = PagedDecode  # type: ignore[attr-defined]
    module.BatchDecodeMlaWithPagedKVCacheWrapper = LatentDecode  # type: ignore[attr-defined]
    for function in (
        rmsnorm,
        silu_and_mul,
        apply_rope_pos_ids,
        get_batch_indices_positions,
        append_paged_kv_cache,
        merge_state,
        packbits,
        top_p_renorm_probs,
        top_k_renorm_probs,
        top_p_sampling_from_probs,
        top_k_sampling_from_probs,
        bmm_fp8,
    ):
        setattr(module, function.__name__, function)
    return module


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[types.ModuleType, types.ModuleType]]:
    """try_ops over the plain-torch flashinfer: (try_ops, flashinfer)."""
    module = reference()
    build_info = types.ModuleType("flashinfer._build_info")
    module._build_info = build_info  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    monkeypatch.setitem(sys.modules, "flashinfer._build_info", build_info)
    monkeypatch.delitem(sys.modules, "flashinfer_build.tryout.ops", raising=False)
    yield importlib.import_module("flashinfer_build.tryout.ops"), module
    sys.modules.pop("flashinfer_build.tryout.ops", None)


def test_the_checks_pass_for_right_results(
    ops: tuple[types.ModuleType, types.ModuleType],
) -> None:
    errors = ops[0].run("cpu")
    assert len(errors) == 30
    assert max(errors.values()) > 0  # it did compare rounded values


def _slightly_wrong(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*args: Any) -> Any:
        result = function(*args)
        last = result[-1] if isinstance(result, tuple) else result
        last.view(-1)[-1] += 1
        return result

    return wrong


@pytest.mark.parametrize(
    "name",
    ["rmsnorm", "silu_and_mul", "apply_rope_pos_ids", "merge_state", "packbits"]
    + ["get_batch_indices_positions", "top_p_renorm_probs", "top_k_renorm_probs", "bmm_fp8"],
)
def test_one_wrong_element_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType], name: str
) -> None:
    program, module = ops
    setattr(module, name, _slightly_wrong(getattr(module, name)))
    with pytest.raises(SystemExit, match="error"):
        program.run("cpu")


@pytest.mark.parametrize("name", ["PagedPrefill", "PagedDecode"])
def test_one_wrong_attention_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = globals()[name]
    monkeypatch.setattr(wrapper, "run", _slightly_wrong(wrapper.run))
    with pytest.raises(SystemExit, match="paged_attention"):
        ops[0].run("cpu")


def test_one_wrong_latent_attention_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatentDecode, "run", _slightly_wrong(LatentDecode.run))
    with pytest.raises(SystemExit, match="mla_decode"):
        ops[0].run("cpu")


def test_one_wrong_product_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SegmentProducts, "run", _slightly_wrong(SegmentProducts.run))
    with pytest.raises(SystemExit, match="gemm"):
        ops[0].run("cpu")


@pytest.mark.parametrize("name", ["top_p_sampling_from_probs", "top_k_sampling_from_probs"])
def test_a_draw_that_is_not_where_its_number_says_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType], name: str
) -> None:
    program, module = ops
    right = getattr(module, name)
    setattr(module, name, lambda p, u, limit: right(p, u.flip(0), limit))
    with pytest.raises(SystemExit, match="sampling"):
        program.run("cpu")


def test_nan_is_noticed(ops: tuple[types.ModuleType, types.ModuleType]) -> None:
    program, module = ops
    module.rmsnorm = lambda x, weight, eps: x * float("nan")  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="rmsnorm"):
        program.run("cpu")


def test_an_operator_that_writes_nothing_is_noticed(
    ops: tuple[types.ModuleType, types.ModuleType],
) -> None:
    program, module = ops
    module.append_paged_kv_cache = lambda *args: None  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="append_paged_kv_cache"):
        program.run("cpu")
