"""What is fuzzed, and what may not happen to it: the one invariant of every reader."""

from __future__ import annotations

import functools
import resource
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from conda_bridge.errors import BridgeError, Fault

from .mutators.chance import Chance, Mutate
from .mutators.text import plain

__all__ = ["MEMORY", "SECONDS", "Finding", "Target", "check"]

# Bytes that reading may take. A process may have 512 MiB; Python and the modules are 128 of them.
MEMORY = 384 << 20
SECONDS = 5.0  # of processor time, for one input; the largest is 64 KiB
_MESSAGE = 1 << 14  # characters of an error that is shown to people
_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = str(_ROOT / "scripts")


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        name: for the command line.
        read: reads an input to its end, and checks what else holds of it (AssertionError).
        modules: whose lines it should reach: ``module``, or ``module:function function``.
        seeds: inputs that are right, by a name; made when they are needed.
        mutate: changes an input, by its format.
        words: of the format.
        largest: bytes of an input.
    """

    name: str
    read: Callable[[bytes], object]
    modules: tuple[str, ...]
    seeds: Callable[[], Mapping[str, bytes] | Iterable[bytes]]
    mutate: Mutate = plain
    words: tuple[str, ...] = ()
    largest: int = 1 << 16

    def inputs(self) -> list[bytes]:
        """The seeds."""
        found = self.seeds()
        return list(found.values() if isinstance(found, Mapping) else found)

    def changed(self, seed: int) -> Iterator[bytes]:
        """The seeds, and without end what the mutator makes of them; the same for one number."""
        seeds = self.inputs()
        yield from seeds
        chance = Chance(seed, words=self.dictionary)
        while True:
            data = chance.choice(seeds)
            for _ in range(chance.choice((1, 1, 2, 4))):
                data = self.mutate(data, chance)[: self.largest]
            yield data

    @property
    def dictionary(self) -> tuple[bytes, ...]:
        """The words as bytes."""
        return tuple(word.encode() for word in self.words)


@dataclass(frozen=True)
class Finding:
    """Something that may not happen, and did.

    Attributes:
        target: whose.
        what: a line for people.
        key: the same for what is the same fault.
        trace: where it happened.
        data: the input.
    """

    target: str
    what: str
    key: str
    trace: str = field(repr=False)
    data: bytes = field(repr=False)


class TooSlow(BaseException):
    """Not an Exception: a reader that turns all of these into its own error does not get it."""


@contextmanager
def _limited_time() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS} s of processor time")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def peak_memory() -> int:
    """The most memory that this process had at any time, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@functools.cache
def _memory_at_first() -> int:
    return peak_memory()


def check(target: Target, data: bytes) -> tuple[bool, Finding | None]:
    """Has an input read.

    Returns:
        Whether it was accepted, and what happened that may not: an exception that is not the
        project's own, an error that cannot be shown, too much time, or too much memory.
    """
    first, before = _memory_at_first(), peak_memory()
    try:
        with _limited_time():
            target.read(data)
    except Fault as error:  # a last net's word for what nobody foresaw
        return False, _found(target, error.__cause__ or error, data)
    except BridgeError as error:
        try:
            _check_message(error)
        except (AssertionError, UnicodeError) as fault:
            return False, _found(target, fault, data)
        accepted = False
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return False, _found(target, error, data)
    else:
        accepted = True
    after = peak_memory()
    if after > max(before, first + MEMORY):
        return accepted, Finding(
            target.name,
            f"memory: {after - first >> 20} MiB more than at first",
            f"{target.name}: memory",
            "",
            data,
        )
    return accepted, None


def _check_message(error: BridgeError) -> None:
    text = str(error)
    assert len(text) <= _MESSAGE, f"an error of {len(text)} characters"
    assert all(line.isprintable() for line in text.split("\n")), f"an error with {text!a}"
    assert all(isinstance(part, str) for part in error.as_dict().values()), error.as_dict()
    assert error.what, "an error that says nothing"


def _found(target: Target, error: BaseException, data: bytes) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(_SOURCES)]
    frame = (own or frames)[-1]
    place = f"{Path(frame.filename).stem}.{frame.name}"
    kind = type(error).__name__
    return Finding(
        target.name,
        f"{kind} in {place}: {str(error)[:200]!r}",
        f"{target.name}: {kind} in {place}",
        "".join(traceback.format_exception(error, limit=-12)),
        data,
    )
