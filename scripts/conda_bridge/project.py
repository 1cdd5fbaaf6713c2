"""A project as the tools see it: its configuration, the scheme of its labels, its hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from . import config as configuration
from .config import Config
from .errors import LabelError
from .hooks import Hooks
from .hooks import load as load_hooks
from .label import Label, Scheme
from .template import Template

__all__ = ["Project"]


@dataclass(frozen=True)
class Project:
    """What is known of a project beside its artifacts.

    Attributes:
        config: its table.
        scheme: how its labels are spelled.
        folds: template of the build string of each package to be folded in, by name; None for any.
        layout: template of the index's folders; None for one flat index.
        folders: templates of other folders of the index, which list all wheels that fit.
        nightly_folders: templates of those that list development versions alone.
        hooks: its own checks.
        source: the file that has the table; empty for a project without one.
        names: what was read of file names, so that none is read twice.
    """

    config: Config = field(default_factory=Config)
    scheme: Scheme = field(default_factory=lambda: Scheme({}))
    folds: dict[str, Template | None] = field(default_factory=dict)
    layout: Template | None = None
    folders: tuple[Template, ...] = ()
    nightly_folders: tuple[Template, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    source: str = ""
    names: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def load(cls, path: Path | None, *, hooks: bool = True) -> Project:
        """The project of a configuration file; without one, a project with the defaults.

        Args:
            path: the file.
            hooks: import its hooks; False where no code of its own is to run.

        Raises:
            ConfigError: the table, a template in it or its hooks cannot be used.
        """
        return cls.of(configuration.read(path), str(path), hooks=hooks) if path else cls()

    @classmethod
    def of(cls, config: Config, source: str = "", *, hooks: bool = True) -> Project:
        """The project of a table that was read already.

        Args:
            config: the table.
            source: its file; the folder of its hooks is relative to that.
            hooks: import its hooks.

        Raises:
            ConfigError: a template in it or its hooks cannot be used.
        """
        where = f"{source}: {configuration.TABLE}" if source else configuration.TABLE
        table = msgspec.to_builtins(config.label) if config.label else {}
        scheme = Scheme(table, f"{where}.label")
        folds = {
            item.package: (
                scheme.build_template(item.build, f"{where}.fold.{item.package}.build")
                if item.build
                else None
            )
            for item in config.fold
        }
        layout = (
            Template(config.index_layout, scheme.fields, f"{where}.index-layout")
            if config.index_layout
            else None
        )
        others = [
            tuple(Template(text, scheme.fields, f"{where}.{key}") for text in texts)
            for key, texts in (
                ("index-folders", config.index_folders),
                ("index-nightly-folders", config.index_nightly_folders),
            )
        ]
        own = Hooks()
        if config.hooks and hooks:
            folder = Path(source).parent / config.hooks_path if source else None
            own = load_hooks(config.hooks, f"{where}.hooks", folder)
        return cls(config, scheme, folds, layout, others[0], others[1], own, source)

    def label_of(self, name: str, version: str, build: str, where: str = "") -> Label | None:
        """What the version and build string of a package say; None where they have no template.

        Raises:
            LabelError: its template spells no such build string.
        """
        template = self.folds.get(name)
        if template is not None:
            return self.scheme.parse_fold(template, build, version, where)
        if self.scheme.build is not None and name not in self.folds:
            return self.scheme.parse_build(build, version, where)
        return None

    def check_name(self, name: str, where: str) -> None:
        """Refuses a package that the configuration is not about.

        Raises:
            LabelError: it is about another one.
        """
        config = self.config
        if config.package and name not in (config.package, *self.folds):
            raise LabelError(
                f"{name!r} is not a package of this project",
                where=where,
                expected=" or ".join([config.package, *self.folds]),
                fix="conda-bridge takes anybody's package with --no-config",
            )
