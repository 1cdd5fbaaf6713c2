"""What the NVIDIA driver says: the CUDA it is for, and its GPUs.

Run as a program it prints that as JSON, with the standard library alone: a broken driver may end
the process that asks it, so ``flashinfer.env`` has another one ask.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

__all__ = ["ask"]

_LIBRARY = "libcuda.so.1"
_SUCCESS, _NO_DEVICE = 0, 100
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class _Refused(Exception):
    """A call of the driver that failed."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _call(driver: Any, name: str, *arguments: Any) -> None:
    code = int(getattr(driver, name)(*arguments))
    if code == _SUCCESS:
        return
    words = []
    for ask_for in ("cuGetErrorName", "cuGetErrorString"):
        text = ctypes.c_char_p()
        if getattr(driver, ask_for)(code, ctypes.byref(text)) == _SUCCESS and text.value:
            words.append(text.value.decode(errors="replace"))
    raise _Refused(code, f"{name} failed with {code}" + (f" ({': '.join(words)})" if words else ""))


def _gpu(driver: Any, ordinal: int) -> dict[str, Any]:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    numbers = [ctypes.c_int(), ctypes.c_int()]
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), ordinal)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    for number, attribute in zip(numbers, (_MAJOR, _MINOR)):
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return {
        "ordinal": ordinal,
        "name": name.value.decode(errors="replace"),
        "capability": [number.value for number in numbers],
        "memory": memory.value,
    }


def _mapped(name: str) -> str:
    """Where a library that is loaded lies."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
            lines = maps.read().splitlines()
    except OSError:
        return ""
    paths = [line.split(None, 5)[5] for line in lines if len(line.split(None, 5)) == 6]
    return next((path for path in paths if path.rpartition("/")[2].startswith(name)), "")


def _module_version() -> str:
    """The version of the kernel's module, such as 580.65.06; empty where it tells none."""
    try:
        with open("/sys/module/nvidia/version", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def ask() -> dict[str, Any]:
    """What it says.

    Returns:
        ``present``, whether there is a driver; ``path`` of its library; ``version``; ``cuda`` as
        two numbers, or None; ``gpus``; and ``error``, empty where nothing failed. That there is no
        GPU is no failure.
    """
    answer: dict[str, Any] = {
        "present": False,
        "path": "",
        "version": _module_version(),
        "cuda": None,
        "gpus": [],
        "error": "",
    }
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        words = str(error)
        absent = words.startswith(f"{_LIBRARY}:") and "No such file" in words
        answer["error"] = "" if absent else words
        answer["present"] = not absent
        return answer
    answer.update(present=True, path=_mapped("libcuda.so"))
    try:
        version = ctypes.c_int()
        _call(driver, "cuDriverGetVersion", ctypes.byref(version))
        answer["cuda"] = [version.value // 1000, version.value % 1000 // 10]
        _call(driver, "cuInit", 0)
        count = ctypes.c_int()
        _call(driver, "cuDeviceGetCount", ctypes.byref(count))
        for ordinal in range(count.value):
            answer["gpus"].append(_gpu(driver, ordinal))
    except _Refused as error:
        if error.code != _NO_DEVICE:
            answer["error"] = str(error)
    except AttributeError as error:  # a library without one of the functions
        answer["error"] = str(error)
    return answer


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask()))
