"""What a project checks that no table can say: a module of its own, named in its configuration.

A hook comes from the user's own configuration file and never from a package that is read.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from .errors import ConfigError

if TYPE_CHECKING:
    from .bridge.dependencies import MatchSpec
    from .formats.conda_package import CondaPackage
    from .formats.wheel_reader import Wheel
    from .label import Label, Scheme
    from .verify.artifact import Artifact
    from .verify.findings import ArtifactReport

__all__ = ["Condition", "Diagnosis", "Fact", "Hooks", "load"]


class Fact(NamedTuple):
    """Something that the page finds in what a project's own diagnosis printed.

    Attributes:
        name: of the fact.
        title: what a person calls it.
        path: where the JSON form has it; ``*`` stands for each element of a list.
        pattern: a regular expression, which JavaScript reads, with one group that has it in the
            form for people, at the beginning of a line.
        numbers: how many numbers of a version count; 0 for the text as it is.
    """

    name: str
    title: str
    path: tuple[str, ...]
    pattern: str
    numbers: int = 2


class Condition(NamedTuple):
    """What a build asks of the machine.

    Attributes:
        fact: which.
        test: ``among`` the values, or no less (``least``) than the first of them.
        values: as the fact has them; ``{field}`` stands for the value of a field of the label.
        reason: why it does not fit, with the same; ``{found}`` stands for what was found.
        clients: for which it counts; empty for all.
        wish: decides only between builds that fit.
    """

    fact: str
    test: Literal["among", "least"]
    values: tuple[str, ...]
    reason: str
    clients: tuple[str, ...] = ()
    wish: bool = False


class Diagnosis(NamedTuple):
    """A program of the project that says what a machine has.

    Attributes:
        command: that prints it.
        facts: that are found in it.
        client: where it says which installer is used, with the same meaning as in :class:`Fact`.
    """

    command: str
    facts: tuple[Fact, ...]
    client: Fact | None = None


class Hooks:
    """The hooks of a project without any; a project's own derive from it.

    Attributes:
        fact_titles: facts that :meth:`verify` adds to a report, and what a person calls them.
    """

    fact_titles: Mapping[str, str] = MappingProxyType({})

    def looks_into(self) -> Sequence[str]:
        """Files (paths in the wheel, or patterns) whose content the checks below want to see.

        ``*.dist-info/METADATA`` is the package's own, before it is written anew.
        """
        return ()

    def check_package(
        self, package: CondaPackage, label: Label, contents: Mapping[str, bytes]
    ) -> None:
        """Refuses a conda package that must not become a wheel.

        Args:
            package: the main package.
            label: what its name says.
            contents: by path in the wheel, the files of :meth:`looks_into` that it has.

        Raises:
            BridgeError: what is wrong with it.
        """

    def check_folded(self, package: CondaPackage, label: Label) -> None:
        """Refuses a conda package that must not be folded into a wheel.

        Args:
            package: one of those that the configuration folds in.
            label: what the main package's name says.

        Raises:
            BridgeError: what is wrong with it.
        """

    def check_wheel(self, wheel: Wheel, label: Label, contents: Mapping[str, bytes]) -> None:
        """Refuses a wheel that must not become a conda package.

        Args:
            wheel: as it was read.
            label: what its name says.
            contents: by path in the wheel, the files of :meth:`looks_into` that it has.

        Raises:
            BridgeError: what is wrong with it.
        """

    def conda_depends(self, label: Label) -> Sequence[str]:
        """Dependencies that a conda package of this label has beside those of its requirements.

        One that names a package takes the place of what the requirements say of that package.
        """
        return ()

    def requirement(self, spec: MatchSpec) -> str | None:
        """The requirement of a conda dependency; None to leave it to tables and defaults."""

    def verify(self, artifact: Artifact, report: ArtifactReport) -> None:
        """Adds a project's own checks of a wheel or conda package to its report."""

    def verify_together(self, main: ArtifactReport, folds: Sequence[ArtifactReport]) -> None:
        """Adds what only a package and those that are folded in with it can say together.

        Args:
            main: takes the checks; its artifact is the main package.
            folds: of the packages of the same label.
        """

    def diagnosis(self) -> Diagnosis | None:
        """A program whose output the page takes; None where there is none."""

    def conditions(self, label: Label, gpu_code: Sequence[str], glibc: str) -> Sequence[Condition]:
        """What a build asks of a machine, by the facts of :meth:`diagnosis`.

        Where no build fits, one whose first condition holds is shown before all others.

        Args:
            label: of the build.
            gpu_code: in its libraries, in torch's notation: ``8.0+PTX``.
            glibc: the oldest that it runs with, such as ``2.28``; empty where nobody knows.
        """
        return ()

    def index_page(self, folders: Mapping[str, Sequence[Label]], scheme: Scheme) -> str | None:
        """The overview page of the wheel index, as HTML; None for the plain list.

        Args:
            folders: of the index, each with the labels of its wheels, the newest last.
            scheme: how the labels are spelled.
        """


def load(module: str, where: str, folder: Path | None = None) -> Hooks:
    """The hooks in a module's ``HOOKS``.

    Args:
        module: its whole name.
        where: the key that names it, for messages.
        folder: looked through last; None for what Python finds by itself.

    Raises:
        ConfigError: there is no such module, it cannot be imported, or it has no hooks.
    """
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a module of somebody else's does when it is imported
        raise ConfigError(
            f"the module {module!r} cannot be imported: {type(error).__name__}: {error}",
            where=where,
            expected="a module on sys.path, or below hooks-path, with an object HOOKS",
        ) from error
    hooks = getattr(found, "HOOKS", None)
    if not isinstance(hooks, Hooks):
        raise ConfigError(
            f"HOOKS of {module} is {type(hooks).__name__}",
            where=where,
            expected="an instance of conda_bridge.hooks.Hooks",
        )
    return hooks
