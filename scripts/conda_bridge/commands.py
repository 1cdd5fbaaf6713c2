"""The commands that install one build and no other: the only place that spells them.

With a second index or channel installers take the highest version of either, and anybody can give a
package of theirs the name. So each command names what nobody else has: a version with a local part,
which public indexes refuse, or a wheel by its address and digest; for conda version and build.

Runs on Python 3.8: the label module of a project's own build may import it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "FORGE",
    "conda",
    "conda_alone",
    "direct",
    "pip",
    "pip_alone",
    "pip_direct",
    "uv",
    "uv_direct",
    "uv_project",
    "uv_project_direct",
    "uv_tables",
]

# Where conda packages find what they depend on.
FORGE = "conda-forge"


def pip(requirement: str, index: str) -> str:
    """For pip; what the build depends on comes from the user's own index.

    >>> pip("toy==1.0+cu130", "<address>/index/cu130/")
    'pip install "toy==1.0+cu130" --extra-index-url <address>/index/cu130/'
    """
    return f'pip install "{requirement}" --extra-index-url {index}'


def pip_alone(requirement: str, index: str) -> str:
    """For pip, where one index has all that is not installed yet; its address may hold ``$PWD``.

    >>> pip_alone("toy==1.0+cu130", "file://$PWD/index/")
    'pip install "toy==1.0+cu130" --index-url "file://$PWD/index/"'
    """
    return f'pip install "{requirement}" --index-url "{index}"'


def conda_alone(spec: str, channel: str) -> str:
    """For conda, where one channel has all that is not installed yet, without a network.

    >>> conda_alone("toy=1.0=cu130_0", "file://$PWD/channel")
    'conda install --offline --override-channels -c "file://$PWD/channel" "toy=1.0=cu130_0"'
    """
    return f'conda install --offline --override-channels -c "{channel}" "{spec}"'


def uv(requirement: str, index: str) -> str:
    """For uv: an index that is named comes before the user's own, whatever UV_INDEX_STRATEGY says.

    >>> uv("toy==1.0+cu130", "<address>/index/cu130/")
    'uv pip install "toy==1.0+cu130" --index <address>/index/cu130/ --index-strategy first-index'
    """
    return f'uv pip install "{requirement}" --index {index} --index-strategy first-index'


def uv_project(name: str, requirement: str, index: str) -> str:
    """For the ``pyproject.toml`` of a project that uv locks.

    The index is asked for this package alone (``explicit``), and this package of no other index.
    """
    return f'[project]\ndependencies = ["{requirement}"]\n\n{uv_tables(name, index)}'


def uv_tables(name: str, index: str) -> str:
    """The part of that file which has uv take a package from one index alone."""
    return (
        f'[tool.uv.sources]\n{name} = {{ index = "{name}" }}\n\n'
        f'[[tool.uv.index]]\nname = "{name}"\nurl = "{index}"\nexplicit = true'
    )


def direct(name: str, address: str, sha256: str) -> str:
    """A wheel by its address and digest: the requirement of one whose version others can have."""
    return f"{name} @ {address}#sha256={sha256}"


def pip_direct(requirement: str) -> str:
    """For pip, of a requirement that says where its wheel is."""
    return f'pip install "{requirement}"'


def uv_direct(requirement: str) -> str:
    """For uv, of a requirement that says where its wheel is."""
    return f'uv pip install "{requirement}"'


def conda(specs: Sequence[str], channel: str, more: Sequence[str] = (FORGE,)) -> str:
    """For conda, mamba and micromamba.

    Args:
        specs: each with version and build, ``toy=1.0=cu130_0``.
        channel: that has them, an address or a name.
        more: channels that have what they depend on.

    >>> conda(["toy=1.0=cu130_0"], "<address>/channel")
    'conda install -c <address>/channel -c conda-forge "toy=1.0=cu130_0"'
    """
    channels = " ".join(f"-c {name}" for name in dict.fromkeys((channel, *more)))
    return f"conda install {channels} " + " ".join(f'"{spec}"' for spec in specs)


def uv_project_direct(requirement: str) -> str:
    """For the ``pyproject.toml`` of a project, of a requirement that says where its wheel is."""
    return f'[project]\ndependencies = ["{requirement}"]'
