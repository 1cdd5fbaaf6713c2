"""Custom masks: a bool for each pair of a query and a key, packed into bits for the kernels."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch

from flashinfer import _checks, _ops, _plan


class Masks(NamedTuple):
    """A custom mask as it was given, and the names to complain under."""

    flat: torch.Tensor | None
    packed: torch.Tensor | None
    names: tuple[str, str] = ("custom_mask", "packed_custom_mask")

    def __bool__(self) -> bool:
        return self.flat is not None or self.packed is not None


NO_MASKS = Masks(None, None)


class HostMask:
    """A checked custom mask, not packed yet, and where each request begins in it."""

    def __init__(self, masks: Masks, requests: _plan.Requests, device: torch.device) -> None:
        bits = requests.qo_indptr.diff().to(torch.int64) * requests.kv_len
        self.indptrs = [_indptr((bits + 7) // 8)]  # in packed bytes; in bools where they come
        self.size = int(self.indptrs[0][-1])
        self._bools: torch.Tensor | None = None
        if masks.packed is not None:
            packed = packed_mask(masks.names[1], masks.packed, self.size, device)
            self._packed = packed[: self.size]
        else:
            assert masks.flat is not None
            self.indptrs.append(_indptr(bits))
            count = int(self.indptrs[1][-1])
            self._bools = flat_mask(masks.names[0], masks.flat, count, device)
            self._packed = torch.empty((self.size,), dtype=torch.uint8, device=device)

    def pack(self, indptrs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The packed mask and its offsets, given :attr:`indptrs` on the device."""
        if self._bools is not None:
            _ops.segment_packbits(self._bools, indptrs[1], indptrs[0], self._packed, True)
        return self._packed, indptrs[0]


def _indptr(sizes: torch.Tensor) -> torch.Tensor:
    indptr = torch.zeros((sizes.shape[0] + 1,), dtype=torch.int64)
    torch.cumsum(sizes, dim=0, out=indptr[1:])
    if int(indptr[-1]) >= 2**31:
        raise ValueError(f"the custom masks come to {int(indptr[-1])} entries, 2^31 or more")
    return indptr.to(torch.int32)


def flat_mask(name: str, mask: torch.Tensor, bits: int, device: torch.device) -> torch.Tensor:
    """A custom mask as contiguous bools in one dimension on the device."""
    _checks.tensor(name, mask)
    if mask.numel() != bits:
        raise ValueError(
            f"{name} has shape {list(mask.shape)}, {mask.numel()} elements, expected {bits}: one"
            " for each pair of a query and a key of its request"
        )
    return _plan.to_device(mask, device).to(torch.bool).reshape(-1).contiguous()


def packed_mask(name: str, mask: torch.Tensor, size: int, device: torch.device) -> torch.Tensor:
    """A packed custom mask, of ``size`` bytes or more, contiguous on the device."""
    _checks.dims(name, mask, "[bytes]")
    if mask.dtype != torch.uint8:
        raise TypeError(f"{name} has dtype {mask.dtype}, expected torch.uint8")
    if mask.shape[0] < size:
        raise ValueError(
            f"{name} has {mask.shape[0]} bytes, expected {size}: every request from a fresh byte"
        )
    return _plan.to_device(mask, device).contiguous()
