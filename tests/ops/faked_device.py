"""A CUDA device that is none: its tensors are on the host, and what waits for it is counted.

Enough of a device for flashinfer's Python: the ops run on the CPU, plans are made for the CPU, and
every tensor says it is where it would be.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from flashinfer import _single

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; its numbers are in ``host``."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=host.device,  # what torch's C++ guards; Python is told another one
            dispatch_device=True,
        )
        made.host = host
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # torch's C++ wants to make the device current here, and a torch for the CPU cannot.
        if func is torch.Tensor.__getitem__:
            return OnDevice(args[0].host[tree_map(host_of, args[1])])
        if func in _GUARDED:
            with torch._C.DisableTorchFunctionSubclass():
                return _GUARDED[func](*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return CUDA
        raise RuntimeError(f"{func} outside of the faked device")


# As of indexing: without the binding of torch.Tensor in between.
_GUARDED = {torch.Tensor.nonzero: aten.nonzero.default, torch.Tensor.copy_: aten.copy_.default}


def on_device(value: Any) -> bool:
    return isinstance(value, OnDevice)


def host_of(value: Any) -> Any:
    return value.host if isinstance(value, OnDevice) else value


class FakedDevice(TorchDispatchMode):
    """Runs every op on the host, and keeps in ``waits`` what a real device would wait for."""

    # Their results are numbers on the host, or tensors of a size that only the device knows.
    READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._pinned: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.prim.device.default:
            return CUDA
        name = func.name().split(".")[0]
        if name == "flashinfer::single_attention":  # in Python, over other ops
            with self:
                return _single._run(*args)
        if name == "flashinfer::attention_plan":
            args = (*args[:6], -1, *args[7:])
        if name == "aten::is_pinned":
            return args[0].untyped_storage().data_ptr() in self._pinned
        tensors = [value for value in self._flat((args, kwargs)) if isinstance(value, torch.Tensor)]
        here = any(map(on_device, tensors))
        if here and name in self.READS:
            self.waits.append(name)
        there = here
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = torch.device("cpu")
        if name == "aten::_to_copy":
            self._copied(args[0], there, kwargs.get("non_blocking", False))
        elif name == "aten::copy_":
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            self._copied(args[1], on_device(args[0]), non_blocking)
        pinned = kwargs.pop("pin_memory", False) or name == "aten::_pin_memory"
        if name == "aten::_pin_memory":
            func, args, kwargs = aten.clone.default, args[:1], {}
        given = {id(value.host): value for value in tensors if isinstance(value, OnDevice)}
        result = func(*tree_map(host_of, args), **tree_map(host_of, kwargs))

        def place(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if pinned:
                self._pinned.add(value.untyped_storage().data_ptr())
            if id(value) in given:
                return given[id(value)]
            return OnDevice(value) if there else value

        return tree_map(place, result)

    def _copied(self, source: torch.Tensor, to_device: bool, non_blocking: bool) -> None:
        if on_device(source) and not to_device:
            self.waits.append("a copy to the host")
        elif to_device and not on_device(source):
            pinned = source.untyped_storage().data_ptr() in self._pinned
            if not (pinned and non_blocking):
                self.waits.append("a copy of pageable memory")

    @staticmethod
    def _flat(value: Any) -> list[Any]:
        found: list[Any] = []
        tree_map(found.append, value)
        return found


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> FakedDevice:
    """The device, to be entered with ``with``."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    return FakedDevice()


def put(value: torch.Tensor) -> OnDevice:
    """A tensor of the host on the device, without counting the copy."""
    return OnDevice(value)
