"""The failures that can be reported, one type each, with its exit code and next step.

Exit codes are the same in every program: 0 done, 1 a finding (the input was understood and is
wrong), 2 unusable input (nothing could be concluded).
"""

from __future__ import annotations

from typing import Any, ClassVar

from .printable import printable, printable_lines, shortened

__all__ = [
    "ArtifactError",
    "BridgeError",
    "BuildFailed",
    "ConfigError",
    "ConflictError",
    "Fault",
    "LabelError",
    "LabelMismatch",
    "StorageError",
    "TestsFailed",
    "ToolchainError",
    "full_disk_fix",
]

_FULL = "No space left on device"  # the words of errno ENOSPC, in every program's messages
_FREE_SPACE = "the disk is full: free space there and run the same command again, it continues"


class BridgeError(Exception):
    """A failure to show to a person.

    Args:
        what: what was wrong, with the value that was found.
        where: the file, member, key or step in which it was found.
        expected: what would have been right.
        fix: the command or change that solves it.
        log: the last lines of a program that failed, which are shown below `what`. Everything else
            is shown in one line: a name with a line feed in it begins no line of ours.
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self, what: str, *, where: str = "", expected: str = "", fix: str = "", log: str = ""
    ) -> None:
        self._said = shortened(what)
        self._log = log
        self.what = f"{self._said}\n{log}" if log else self._said
        self.where = shortened(where)
        self.expected = shortened(expected)
        self.fix = shortened(fix)
        super().__init__(self._render())

    def _render(self) -> str:
        said = printable(self._said)
        lines = [f"{printable(self.where)}: {said}" if self.where else said]
        if self._log:
            lines.append(printable_lines(self._log))
        if self.expected:
            lines.append(f"  expected: {printable(self.expected)}")
        if self.fix:
            lines.append(f"  to do:    {printable(self.fix)}")
        return "\n".join(lines)

    def within(self, name: str) -> BridgeError:
        """The same, saying that it is about the file `name`, if it does not say so yet."""
        if name not in f"{self.where} {self.what}":
            self.where = f"{name}: {self.where}" if self.where else name
            self.args = (self._render(),)
        return self

    def as_dict(self) -> dict[str, Any]:
        """The same facts for ``--json``."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "fix": self.fix,
        }


class LabelError(BridgeError):
    """A version, build string or file name that a project does not give, or that says nothing."""


class ConfigError(BridgeError):
    """A configuration, a recipe, a mapping or a lock file that cannot be used."""


class ArtifactError(BridgeError):
    """A conda package or wheel that is truncated, tampered with, hostile or misnamed."""


class ToolchainError(BridgeError):
    """A compiler, torch or package that cannot be had or is not what the lock says."""


class StorageError(BridgeError):
    """A file that cannot be read or written: the disk is full, read-only or broken.

    Args:
        error: what the system said.
    """

    def __init__(self, error: OSError) -> None:
        names = [str(name) for name in (error.filename, error.filename2) if name]
        what = f"{type(error).__name__}: {error.strerror or error}"
        super().__init__(what, where=" -> ".join(names), fix=full_disk_fix(str(error)))


class Fault(BridgeError):
    """A mistake in this program: an exception that no part of it foresaw.

    Args:
        what: the exception.
        stage: what the program was doing.
        file: what it was doing it with; may be empty.
        traceback: where in the program it was, in lines.
    """

    def __init__(self, what: str, stage: str = "", file: str = "", traceback: str = "") -> None:
        self.traceback = traceback
        super().__init__(
            what,
            where=f"{file}: {stage}" if file else stage,
            fix="this is a mistake in the program, not in the file: report it with what stands"
            " below",
        )

    def _render(self) -> str:
        lines = printable_lines(self.traceback).splitlines()
        return "\n".join([super()._render(), *(f"  | {line}" for line in lines)])

    def as_dict(self) -> dict[str, Any]:
        """The same facts for ``--json``, with the traceback."""
        return {**super().as_dict(), "traceback": self.traceback}


class LabelMismatch(BridgeError):
    """The measured toolchain is not the one that the label promises."""

    exit_code = 1


class BuildFailed(BridgeError):
    """A compiler or a builder that was started properly and failed."""

    exit_code = 1


class ConflictError(BridgeError):
    """Something published already exists under that name with different bytes."""

    exit_code = 1


class TestsFailed(BridgeError):
    """An installed artifact that does not do what it should."""

    exit_code = 1
    __test__ = False  # pytest: an exception, not a test class


def full_disk_fix(said: str) -> str:
    """What to do where a program said that the disk is full; empty where it did not."""
    return _FREE_SPACE if _FULL in said else ""
