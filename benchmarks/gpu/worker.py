"""The process of one contestant: it builds what it is asked for, checks it and times it.

Requests and answers are JSON objects, one a line, on standard input and output; what libraries
print goes to standard error. An answer with ``fatal`` is the last one: the CUDA context is gone.

    {"do": "hello"}                                           what is here
    {"do": "ceilings"}                                        copy bandwidth, matmul rate
    {"do": "prepare", "op": ..., "shape": ..., "bytes": ..., "sides": [...]}
    {"do": "sample", "side": ...}                             seconds of one call
    {"do": "release"}                                         gives the memory back
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# At the end: the flashinfer that is measured is an installed one, not the source tree in here.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.gpu import attention, device, elementwise, gemm, measure, mla, sampling
from benchmarks.gpu.workload import ERROR_LIMIT, Buffers, Workload, error_of

__all__ = ["Contestant", "main", "serve"]

_SEED = 20241
_CPU_SIZES = (1 << 22, 256)
_CUDA_SIZES = (1 << 30, 8192)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]


class Contestant:
    """Answers requests.

    Args:
        where: ``cuda`` or ``cpu``.
        library: the import name of a flashinfer, or empty: torch alone.
        rotated: bytes to rotate through; None for what the device's cache asks for.
    """

    def __init__(self, where: str, library: str = "", rotated: int | None = None) -> None:
        self._device = torch.device(where)
        self._cuda = self._device.type == "cuda"
        self._library: ModuleType | None = importlib.import_module(library) if library else None
        self._rotated = rotated
        self._timer: measure.Timer = measure.GraphTimer() if self._cuda else measure.HostTimer()
        self._timed: dict[str, measure.Timed] = {}

    @property
    def file(self) -> Path | None:
        """Where the library was imported from."""
        return Path(str(self._library.__file__)) if self._library else None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what is asked for."""
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "ceilings": self._ceilings,
            "prepare": self._prepare,
            "sample": self._sample,
            "release": self._release,
        }
        return actions[request["do"]](request)

    def _hello(self, _request: dict[str, Any]) -> dict[str, Any]:
        library = self._library
        return {
            **device.facts(),
            "version": str(getattr(library, "__version__", "")) if library else "",
            "file": str(self.file or ""),
        }

    def _ceilings(self, _request: dict[str, Any]) -> dict[str, Any]:
        size, n = _CUDA_SIZES if self._cuda else _CPU_SIZES
        found = {
            "copy": measure.copy_bandwidth(self._timer, self._device, size),
            "matmul": measure.matmul_rate(self._timer, self._device, n),
        }
        self._empty_cache()
        return found

    def _workload(self, op: str, shape: dict[str, int]) -> Workload:
        generator = torch.Generator(self._device).manual_seed(_SEED)
        if op in attention.OPS:
            paged = self._library is not None
            return attention.AttentionWorkload(op, self._device, generator, paged=paged, **shape)
        if op in mla.OPS:
            paged = self._library is not None
            return mla.MlaWorkload(op, self._device, generator, paged=paged, **shape)
        if op in sampling.OPS:
            return sampling.SamplingWorkload(op, self._device, generator, **shape)
        if op in gemm.OPS:
            return gemm.GemmWorkload(op, self._device, generator, **shape)
        return elementwise.ElementwiseWorkload(op, self._device, generator, **shape)

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        self._release(request)
        l2 = torch.cuda.get_device_properties(0).L2_cache_size if self._cuda else 0
        rotated = measure.ROTATED if self._rotated is None else self._rotated
        count = measure.number_of_sets(
            request["bytes"], l2 if self._rotated is None else 0, rotated
        )
        workload = self._workload(request["op"], request["shape"])
        sets = [workload.make() for _ in range(count)]
        sides = {side: self._side(workload, side, sets) for side in request["sides"]}
        return {"sets": count, "sides": sides}

    def _side(self, workload: Workload, side: str, sets: Sequence[Buffers]) -> dict[str, Any]:
        try:
            call = workload.call(side, self._library)
            expected = workload.expected(sets[0])
            error = error_of(workload.picked(call(sets[0])), expected)
            if not error <= ERROR_LIMIT:
                return {
                    "reason": f"wrong result: error {error:.3g}, at most {ERROR_LIMIT} is expected",
                    "wrong": True,
                }

            def bind(buffers: Buffers) -> Callable[[], object]:
                return lambda: call(buffers)

            timed = self._timer.prepare([bind(buffers) for buffers in sets])
        except Exception as error_:  # whatever a library raises is why it is not in the table
            return self._failed(error_)
        self._timed[side] = timed
        return {"error": error, "how": timed.how, "note": timed.note}

    def _sample(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"seconds": self._timed[request["side"]].sample()}

    def _release(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._timed.clear()
        torch.compiler.reset()
        self._empty_cache()
        return {}

    def _empty_cache(self) -> None:
        if self._cuda:
            torch.cuda.empty_cache()  # the other processes need the memory, too

    def _failed(self, error: BaseException) -> dict[str, Any]:
        """Why a side is not in the table."""
        traceback.print_exception(error, limit=-6, file=sys.stderr)
        if self._cuda:
            torch.cuda.synchronize()  # raises where the context is gone, which ends the process
        return {"reason": _reason(error)}


def serve(contestant: Contestant, requests: IO[str], answers: IO[str]) -> int:
    """Answers until there are no more requests.

    Returns:
        The exit status: 1 after a fatal failure.
    """
    for line in requests:
        answer: dict[str, Any]
        try:
            with torch.no_grad():
                answer = contestant.answer(json.loads(line))
        except Exception as error:  # reported to the other end, which decides
            traceback.print_exc(file=sys.stderr)
            answer = {"reason": _reason(error), "fatal": True}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer.get("fatal"):
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--library", default="", help="import name of a flashinfer")
    parser.add_argument("--site", default="", help="folder that it must come from")
    parser.add_argument("--rotated", type=int, help="bytes of buffers to rotate through")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        contestant = Contestant(options.device, options.library, options.rotated)
        if options.site and contestant.file and not contestant.file.is_relative_to(options.site):
            raise ImportError(f"{options.library} comes from {contestant.file}, not {options.site}")
    except Exception as error:  # an import may raise anything
        answers.write(json.dumps({"reason": _reason(error), "fatal": True}) + "\n")
        answers.flush()
        return 1
    with contextlib.suppress(BrokenPipeError):
        return serve(contestant, sys.stdin, answers)
    return 1


if __name__ == "__main__":
    sys.stdout.flush()
    status = main()
    # Past a destroyed CUDA context's destructors, which may wait for ever.
    sys.stderr.flush()
    os._exit(status)
