"""The wheel's own metadata: of the package's ``.dist-info``, and of what conda knows of it.

Name, version, dependencies and licence are the conda package's; what a person reads, extras and
entry points are those that the build wrote. A package without a ``.dist-info`` has ``about.json``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..errors import ArtifactError
from ..formats import foreign
from ..formats.conda_package import CondaPackage
from ..formats.wheel import Metadata
from ..label import public_version
from ..project import Project
from .agreement import depends_of, is_spdx
from .conda_constraint import constraint
from .conda_target import NEWEST
from .dependencies import MatchSpec, pip_specifier, translate
from .names import find_conda
from .tags import parse_built_as

__all__ = ["DistInfo", "Needs", "compose", "needs_of", "version_of"]

# What both recipes state and every builder writes. Other addresses are for [project.urls] of
# pyproject.toml, which reaches the wheel by the source's metadata.
_URL_LABELS = {"home": "Homepage", "dev_url": "Repository"}
# What of a .dist-info a wheel has in a form of its own.
_READ = ("METADATA", "WHEEL", "entry_points.txt")
_SCRIPTS = ("console_scripts", "gui_scripts")
_ENTRY_POINT = re.compile(r"\s*(?P<name>[^=\[\]\r\n]+?)\s*=\s*(?P<object>[^\s=][^\r\n]*?)\s*")


@dataclass
class DistInfo:
    """What the package's own ``.dist-info`` (or ``.egg-info``) says.

    Attributes:
        folder: its name, in site-packages; empty where there is none.
        where: the file with the metadata, for messages.
        metadata: of METADATA or PKG-INFO.
        built_as: the tags in WHEEL.
        entry_points: the text of entry_points.txt.
        licenses: by path below ``licenses``, or as ``License-File`` names them.
        others: files that tools or the project itself look for there (``sboms/...``), by their
            path in the folder; none of a ``.egg-info``.
    """

    folder: str = ""
    where: str = ""
    metadata: Metadata | None = None
    text: bytes = b""
    built_as: list[str] = field(default_factory=list)
    entry_points: str = ""
    licenses: dict[str, bytes] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str, files: Mapping[str, bytes], where: str) -> DistInfo:
        """Reads the files of a ``.dist-info``, by their path in it.

        Args:
            folder: its name.
            files: their content.
            where: the folder, for messages.

        Raises:
            ArtifactError: metadata that cannot be read.
        """
        found = cls(folder=folder)
        for name in ("METADATA", "PKG-INFO", ""):
            if name in files and (name or folder.endswith(".egg-info")):
                found.where = f"{where}/{name}" if name else where
                found.text = files[name]
                found.metadata = Metadata.parse(files[name], found.where)
                break
        found.built_as = parse_built_as(files.get("WHEEL", b"").decode(errors="replace"))
        try:
            found.entry_points = files.get("entry_points.txt", b"").decode()
        except UnicodeDecodeError as error:
            raise ArtifactError(f"not UTF-8: {error}", where=f"{where}/entry_points.txt") from error
        named = set(found.metadata.license_files if found.metadata else ())
        for name, content in files.items():
            if name.startswith("licenses/"):
                found.licenses[name.removeprefix("licenses/")] = content
            elif name in named:
                found.licenses[name] = content
            elif name not in _READ and folder.endswith(".dist-info"):
                found.others[name] = content
        return found

    def scripts(self) -> dict[str, str]:
        """The programs that entry_points.txt makes."""
        groups = _groups(self.entry_points, self.folder)
        return {k: v for group in _SCRIPTS for k, v in groups.get(group, {}).items()}


def _groups(text: str, where: str) -> dict[str, dict[str, str]]:
    try:
        return foreign.entry_points(text)
    except foreign.Unreadable as error:
        raise ArtifactError(
            f"cannot be read: {error}",
            where=f"{where}/entry_points.txt",
            expected="sections such as [console_scripts] with lines name = package.module:function",
        ) from error


def entry_points(own: DistInfo, linked: Sequence[str], where: str) -> str:
    """``entry_points.txt`` of the wheel.

    Args:
        own: the package's ``.dist-info``.
        linked: ``name = module:function``, of ``info/link.json``.
        where: that file, for messages.

    Raises:
        ArtifactError: an entry point that is none.
    """
    scripts = own.scripts()
    new = {}
    for item in linked:
        found = _ENTRY_POINT.fullmatch(item)
        if not found:
            raise ArtifactError(
                f"{item!r} is no entry point", where=where, expected="tool = package.module:main"
            )
        if found["name"] not in scripts:
            new[found["name"]] = found["object"]
    if not new:
        return own.entry_points
    groups = _groups(own.entry_points, own.folder)
    groups.setdefault("console_scripts", {}).update(new)
    text = io.StringIO()
    for group, items in groups.items():
        text.write(f"[{group}]\n")
        text.writelines(f"{name} = {target}\n" for name, target in items.items())
        text.write("\n")
    return text.getvalue().rstrip("\n") + "\n"


# ---------------------------------------------------------------- version


def version_of(package: CondaPackage, source: Metadata | None) -> str:
    """The wheel's version of a package that has no label.

    It is that of the METADATA where its public part is the conda version, else the conda version.

    Raises:
        LabelError: PEP 440 has no such version.
    """
    where = package.path.name
    public = public_version(package.version, where)
    if source is not None:
        try:
            own = foreign.pip_version(source.version)
        except foreign.Unreadable:
            return public
        if Version(own.public) == Version(Version(public).public):
            return str(own)
    return public


# ---------------------------------------------------------------- dependencies


@dataclass
class Needs:
    """What the wheel requires.

    Attributes:
        python: of the conda dependency on python, as a PEP 440 specifier.
        dist: the requirements.
        left_out: conda dependencies that became none, because they are no Python project and come
            with no promise that the libraries in them are there.
        notes: what a person may want to know of it.
    """

    python: str = ""
    dist: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def needs_of(
    packages: Sequence[CondaPackage],
    project: Project,
    mapping: Mapping[str, str | None] | None,
    source: Metadata | None,
) -> Needs:
    """What the wheel of these packages requires.

    Args:
        packages: the main one, and those folded into it.
        project: whose configuration maps names.
        mapping: the user's names.
        source: the METADATA that the build wrote.

    Raises:
        ArtifactError: a dependency that has no pip form.
    """
    own = _parsed(source.requires_dist if source else ())
    names = {package.name for package in packages}
    needs = Needs()
    pythons: list[str] = []
    made: dict[str, list[Requirement]] = {}
    for package in packages:
        where = f"{package.path.name}: info/index.json: depends"
        for spec in depends_of(package):
            if spec.name == "python":
                pythons.append(_python(spec.version, source, where))
                continue
            if spec.name in names:
                continue
            stated = _as_stated(spec, own, project, mapping)
            if stated is not None:
                made.setdefault(canonicalize_name(stated.name), []).append(stated)
                continue
            found = translate(
                spec,
                where,
                project=project,
                mapping=mapping,
                required=[item.name for item in own],
            )
            if found.requirement is not None:
                requirement = Requirement(found.requirement)
                made.setdefault(canonicalize_name(requirement.name), []).append(requirement)
            elif found.library and spec.name not in needs.left_out:
                needs.left_out.append(spec.name)
                needs.notes.append(f"no requirement for {spec}: {found.why}")
    # Builders order them differently, and may state one twice.
    needs.python = specifiers(",".join(filter(None, pythons)))
    needs.dist = sorted(_merged(made, own, needs.notes))
    return needs


def _python(version: str, source: Metadata | None, where: str) -> str:
    """``Requires-Python`` of a dependency on python.

    ``2.7.*|>=3.6`` is nothing that pip could be asked for, but the METADATA beside it may say the
    same of the Pythons 3, by which a wheel is installed.
    """
    try:
        return pip_specifier(version, where, "python")
    except ArtifactError as error:
        said = source.requires_python if source else ""
        if said and _same_pythons(version, said):
            return said
        raise ArtifactError(
            error.what,
            where=where,
            expected="comparisons joined by commas, or a Requires-Python in METADATA with the same "
            f"Pythons (it is {said!r})",
            fix="build the package with one of the two",
        ) from error


def _same_pythons(version: str, said: str) -> bool:
    try:
        asked, wanted = foreign.version_spec(version), foreign.specifiers(said)
    except foreign.Unreadable:  # it says nothing of any Python
        return False
    pythons = (f"3.{minor}.{patch}" for minor in range(NEWEST + 2) for patch in range(30))
    return all(asked.matches(foreign.conda_version(one)) == wanted.contains(one) for one in pythons)


def _parsed(texts: Sequence[str]) -> list[Requirement]:
    found = []
    for text in texts:
        try:
            found.append(foreign.requirement(text))
        except foreign.Unreadable as error:
            raise ArtifactError(
                f"{text!r:.200}: {error}", where="METADATA: Requires-Dist"
            ) from error
    return found


def _as_stated(
    spec: MatchSpec,
    own: Sequence[Requirement],
    project: Project,
    mapping: Mapping[str, str | None] | None,
) -> Requirement | None:
    """The requirement of METADATA that a dependency was made of: the way back of ``to_conda``.

    There are constraints that pip has no other words for than those that they were made of.
    """
    for item in own:
        if spec.build or item.url or _of_extra(item):
            continue
        try:
            if find_conda(item.name, project, mapping).name != spec.name:
                continue
            asked = constraint(item.specifier)
            stated = str(foreign.version_spec(asked)) if asked else ""
        except (ArtifactError, foreign.Unreadable):  # conda has no such name or version
            continue
        if stated == spec.version:
            return Requirement(f"{item.name}{item.specifier}")
    return None


def _merged(
    made: Mapping[str, Sequence[Requirement]], own: Sequence[Requirement], notes: list[str]
) -> set[str]:
    """The conda dependencies, with the extras and conditions that METADATA has for them.

    METADATA's own requirements stay where conda has none: those of extras, those of other systems,
    and those that a recipe left out, which pip's users need all the same.
    """
    texts = set()
    for name, requirements in made.items():
        same = [
            item for item in own if canonicalize_name(item.name) == name and not _of_extra(item)
        ]
        markers = {str(item.marker) for item in same if item.marker}
        for requirement in requirements:
            if same:
                requirement.extras |= {extra for item in same for extra in item.extras}
            if requirement.marker is None and len(markers) == 1 and all(i.marker for i in same):
                requirement.marker = same[0].marker
            texts.add(str(requirement))
    for item in own:
        if _of_extra(item):
            texts.add(str(item))
        elif canonicalize_name(item.name) not in made:
            texts.add(str(item))
            notes.append(f"METADATA requires {item}, and the conda package does not")
    return texts


def _of_extra(item: Requirement) -> bool:
    return item.marker is not None and re.search(r"\bextra\b", str(item.marker)) is not None


def specifiers(text: str) -> str:
    """A list of version specifiers in its one order; the text itself where it is none."""
    try:
        return str(foreign.specifiers(text))
    except foreign.Unreadable:
        return text


# ---------------------------------------------------------------- METADATA


def compose(
    name: str,
    version: str,
    requires_python: str,
    requires_dist: Collection[str],
    package: CondaPackage,
    source: Metadata | None,
    license_files: Collection[str],
    folded: Sequence[CondaPackage] = (),
) -> Metadata:
    """The metadata of the wheel.

    Args:
        name, version: of the wheel.
        requires_python: of the wheel.
        requires_dist: of the wheel.
        package: whose ``about.json`` fills what the build did not say.
        source: the METADATA that the build wrote.
        license_files: their names below ``.dist-info/licenses``.
        folded: packages whose files are in the wheel, too, each under a licence of its own.
    """
    about = package.about
    urls = {
        label: value for key, label in _URL_LABELS.items() if (value := _address(about.get(key)))
    }
    base = source or Metadata(name, version, requires_python)
    stated = {_address(url) for url in base.urls.values()}
    described = base.description.strip()
    said = _license(package)
    expression = said if is_spdx(said) else base.license_expression
    others = {text for text in map(_license, folded) if text != said and is_spdx(text)}
    if expression and others:
        whole = (expression, *sorted(others))
        expression = " AND ".join(f"({text})" if " OR " in text else text for text in whole)
    return replace(
        base,
        name=name,
        version=version,
        requires_python=requires_python,
        requires_dist=tuple(requires_dist),
        license_expression=expression,
        license=base.license or said,
        license_files=tuple(license_files),
        summary=base.summary or " ".join(str(about.get("summary") or "").split()),
        description=described or str(about.get("description") or "").strip(),
        description_type=base.description_type if described else "text/plain",
        # An address that the build has a label for needs no second one.
        urls={**{k: v for k, v in urls.items() if v not in stated}, **base.urls},
    )


def _license(package: CondaPackage) -> str:
    return str(package.about.get("license") or package.index.get("license") or "")


def _address(value: object) -> str:
    """The address in ``about.json``, as rattler-build writes it; empty where there is none.

    conda-build has it as a string or a list, and in the recipe's own spelling.
    """
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return ""
    try:
        scheme, host, path, query, fragment = urlsplit(first.strip())
    except ValueError as error:
        raise ArtifactError(f"{first!r}: {error}", where="info/about.json") from error
    return urlunsplit((scheme, host.lower(), path or "/" if host else path, query, fragment))
