"""Plans of attention calls: computed on the host, sent to the device by one copy.

A plan cuts requests into tiles of query rows and chunks of keys (``csrc/attention_plan.h``). It
knows shapes and lengths, and nothing of masks, caps, windows or scales, which a caller may change
from run to run.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Sequence

import torch

from flashinfer import _checks, _ops

# Of fi_attention_plan in csrc/include/flashinfer/api.h, in int32 words.
_HEADER, _ITEM, _MERGE = 4, 9, 5

CUDA_HEAD_DIMS = (64, 128, 256)


class Heads(NamedTuple):
    """How many heads there are, and how many elements each has."""

    qo: int
    kv: int
    dim: int

    def check(self, device: torch.device) -> None:
        """ValueError unless the kernels of the device have it."""
        if self.kv <= 0 or self.qo <= 0 or self.qo % self.kv != 0:
            raise ValueError(
                f"num_qo_heads is {self.qo} and num_kv_heads {self.kv}, expected a positive"
                " multiple"
            )
        if device.type == "cuda" and self.dim not in CUDA_HEAD_DIMS:
            raise ValueError(f"head_dim is {self.dim}, expected 64, 128 or 256 on CUDA")


class Requests(NamedTuple):
    """What is planned for, as int32 host tensors.

    ``qo_indptr`` is ``[batch_size + 1]``; ``kv_base``, the first entry of a request in its page
    table or its first row, and ``kv_len`` are ``[batch_size]``.
    """

    qo_indptr: torch.Tensor
    kv_base: torch.Tensor
    kv_len: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.qo_indptr[-1])


class Capacity(NamedTuple):
    """The sizes of a plan, which a CUDA graph keeps from its first plan on."""

    tile_rows: int
    items: int
    merges: int
    slots: int

    @property
    def words(self) -> int:
        return _HEADER + _ITEM * self.items + _MERGE * self.merges


# From torch 2.7 on; before, an exported program has the ops that are for torch.compile.
_is_exporting = getattr(torch.compiler, "is_exporting", None)


def compiling() -> bool:
    """Whether torch.compile traces.

    torch.export keeps one plan, with its numbers, and its programs may be loaded where there is no
    Python, in which the ops for torch.compile are.
    """
    return torch.compiler.is_compiling() and (_is_exporting is None or not _is_exporting())


class Plan(NamedTuple):
    """A plan on its device, with the scratch for the partial states that it asks for.

    `sizes` has what changes from plan to plan, on the host: the capacity, the tokens, and the rows
    of ragged keys. torch.compile gets it in place of the numbers, of which it would make constants,
    and compile anew for every plan. None where they stay the same.
    """

    words: torch.Tensor
    workspace: torch.Tensor
    capacity: Capacity
    heads: Heads
    tokens: int
    sizes: torch.Tensor | None = None


class _Counts(NamedTuple):
    tile_rows: int
    items: int
    merges: int
    slots: int
    split_target: int


def _plan(
    requests: Requests,
    heads: Heads,
    device: torch.device,
    tile_rows: int,
    max_slots: int,
    capacity: Capacity | None = None,
    words: torch.Tensor | None = None,
) -> _Counts:
    result = torch.empty((5,), dtype=torch.int64)
    _ops.attention_plan(
        *requests,
        *heads,
        device.index if device.type == "cuda" else -1,
        tile_rows,
        max_slots,
        capacity.items if capacity else 0,
        capacity.merges if capacity else 0,
        words,
        result,
    )
    return _Counts(*result.tolist())


def _slots(floats: int | None, heads: Heads, counts: _Counts) -> int:
    """Partial states that fit into ``floats`` (None: as many as could be of use)."""
    if floats is None:
        return counts.split_target
    return min(counts.split_target, floats // (heads.kv * counts.tile_rows * (heads.dim + 1)))


def exact_capacity(
    requests: Requests, heads: Heads, device: torch.device, floats: int | None
) -> Capacity:
    """The sizes that these requests need, with a workspace of ``floats`` fp32 numbers."""
    counts = _plan(requests, heads, device, 0, 0)
    counts = _plan(requests, heads, device, counts.tile_rows, _slots(floats, heads, counts))
    return Capacity(counts.tile_rows, counts.items, counts.merges, counts.slots)


def graph_capacity(
    requests: Requests, heads: Heads, device: torch.device, floats: int, fixed_queries: bool
) -> Capacity:
    """Sizes for all later plans with as many requests, and at most as many query tokens.

    With ``fixed_queries`` each request has as many of them in all plans.
    """
    counts = _plan(requests, heads, device, 0, 0)
    group = heads.qo // heads.kv
    # Without splits an item is a tile. A request has whole tiles, and a last one that is not.
    tiles = counts.items
    if not fixed_queries:
        tiles = requests.tokens * group // counts.tile_rows + requests.kv_len.shape[0]
    slots = _slots(floats, heads, counts)
    merges = min(tiles, slots // 2)  # a tile that is split has two chunks or more
    return Capacity(counts.tile_rows, max(tiles, counts.split_target), merges, slots)


def fill(
    requests: Requests,
    heads: Heads,
    device: torch.device,
    capacity: Capacity,
    split: bool = True,
) -> torch.Tensor:
    """The plan as an int32 host tensor of ``capacity.words``."""
    words = torch.empty((capacity.words,), dtype=torch.int32)
    slots = capacity.slots if split else 0
    _plan(requests, heads, device, capacity.tile_rows, slots, capacity, words)
    return words


def upload(parts: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """int32 host tensors on the device, by one copy that the host does not wait for."""
    if device.type == "cpu" or not parts:
        return list(parts)
    sizes = [part.shape[0] for part in parts]
    # torch keeps a pinned block until its copies are done, whatever happens to this reference.
    pinned = torch.empty((sum(sizes),), dtype=torch.int32, pin_memory=True)
    torch.cat(tuple(parts), out=pinned)
    there = pinned.to(device, non_blocking=True)
    ends = itertools.accumulate(sizes)
    return [there[end - size : end] for size, end in zip(sizes, ends)]


def to_device(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``value`` on the device; from the host, by a copy that the host does not wait for."""
    if device.type == "cpu" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def write(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copies ``source``, of the host or a device, to the beginning of ``target`` without waiting.

    Does nothing where it lies there already.
    """
    if source.data_ptr() == target.data_ptr() and source.dtype == target.dtype:
        return
    if target.is_cuda and not source.is_cuda:
        source = source.pin_memory()
    target[: source.shape[0]].copy_(source, non_blocking=True)


def host_index(name: str, value: torch.Tensor, form: str) -> torch.Tensor:
    """An int32 copy or view on the host of an index tensor of any device.

    A device tensor makes the host wait for what was queued before.
    """
    _checks.dims(name, value, form)
    if value.dtype not in _checks.INTEGERS:
        raise TypeError(f"{name} has dtype {value.dtype}, expected torch.int32 or torch.int64")
    return value.to("cpu", torch.int32).contiguous()


def host_indptr(
    name: str, value: torch.Tensor, batch_size: int | None = None, first: int | None = 0
) -> torch.Tensor:
    """:func:`host_index` of offsets, which must not decrease."""
    host = host_index(name, value, "[batch_size + 1]")
    if host.shape[0] == 0:
        raise ValueError(f"{name} has shape [0], expected [batch_size + 1]")
    if batch_size is not None and host.shape[0] != batch_size + 1:
        raise ValueError(
            f"{name} has shape [{host.shape[0]}], expected [{batch_size + 1}]: batch_size + 1"
        )
    begin = int(host[0])
    if begin < 0 or (first is not None and begin != first):
        raise ValueError(f"{name}[0] is {begin}, expected 0")
    falls = (host.diff() < 0).nonzero()
    if falls.shape[0]:
        at = int(falls[0])
        raise ValueError(
            f"{name}[{at}:{at + 2}] is ({int(host[at])}, {int(host[at + 1])}), expected"
            " non-decreasing values"
        )
    return host


def page_indices(name: str, value: torch.Tensor, count: int, device: torch.device) -> torch.Tensor:
    """The first ``count`` page indices, int32, on the host or, if they came there, the device.

    Of host tensors a plan has a copy, so that the caller may write the next step's into them.
    """
    _checks.dims(name, value, "[indptr[-1]]")
    if value.dtype not in _checks.INTEGERS:
        raise TypeError(f"{name} has dtype {value.dtype}, expected torch.int32 or torch.int64")
    if value.device.type != "cpu" and value.device != device:
        raise ValueError(f"{name} is on {value.device}, expected cpu or {device}")
    if value.shape[0] < count:
        raise ValueError(
            f"{name} has shape [{value.shape[0]}], expected {count} or more: the last offset"
        )
    indices = value[:count].to(torch.int32).contiguous()
    return indices.clone() if device.type == "cpu" else indices


def paged_lengths(
    indptr: torch.Tensor, last_page_len: torch.Tensor, page_size: int, names: tuple[str, str]
) -> torch.Tensor:
    """Keys of every request, int32, from host tensors; 0 for one that has no pages."""
    if page_size <= 0:
        raise ValueError(f"page_size is {page_size}, expected 1 or more")
    pages = indptr.diff()
    _checks.shape(names[1], last_page_len, (pages.shape[0],), f"one for each request of {names[0]}")
    lowest = (pages > 0).to(torch.int32)
    wrong = ((last_page_len < lowest) | (last_page_len > page_size)).nonzero()
    if wrong.shape[0]:
        at = int(wrong[0])
        raise ValueError(
            f"{names[1]}[{at}] is {int(last_page_len[at])}, expected 1..{page_size}, entries in use"
            f" in the last of {int(pages[at])} pages"
        )
    lengths = (pages.to(torch.int64) - 1) * page_size + last_page_len
    if lengths.shape[0] and int(lengths.max()) >= 2**31:
        raise ValueError(f"{names[0]} has a request of {int(lengths.max())} keys, 2^31 or more")
    return (lengths * lowest).to(torch.int32)
