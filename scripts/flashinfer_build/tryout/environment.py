"""The environment that the tests run in: the test tools, torch, and the wheel under test.

Torch comes as hard links from the toolchain's unpacked wheels; the wheel is installed by pip from
the index that was built, as a user would.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from conda_bridge.errors import TestsFailed

from .. import bootstrap, toolchain
from ..label import Label, Variant
from ..toolchain.unpacked import symlink_site

__all__ = ["make"]


def make(variant: Variant, dist: Path, work: Path, *, torch_of: Variant | None = None) -> Path:
    """A fresh environment with the wheel of `variant` from the output folder `dist`.

    Args:
        variant: whose wheel.
        dist: what ``scripts/build.py`` wrote.
        work: where to make the environment.
        torch_of: the variant whose torch it gets instead of that of the wheel; such an
            environment has no test tools.

    Returns:
        Its Python.

    Raises:
        TestsFailed: pip does not install the wheel.
    """
    torch_variant = torch_of or variant
    request = toolchain.Request(torch_variant, importable=True)
    tools = toolchain.provide(request, toolchain.providers(bootstrap.cache_dir()))
    folder = work / f"environment-{variant.id}-{torch_variant.id}"
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    minor = "{}.{}".format(*sys.version_info[:2])
    site = folder / "lib" / f"python{minor}" / "site-packages"
    if torch_of is None:
        # The test tools (pytest, ...) by reference: this program runs in their environment.
        own = Path(sys.prefix) / "lib" / f"python{minor}" / "site-packages"
        (site / "test-tools.pth").write_text(f"{own}\n")
    symlink_site(tools.trees, site)
    python = folder / "bin" / "python"
    label = Label.compose(variant)
    index = (dist / "index" / label.index_dir).as_uri() + "/"
    command = [str(python), "-m", "pip", "install", "--no-deps", "--no-cache-dir", "--isolated"]
    command += ["--index-url", index, label.wheel_requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise TestsFailed(
            "pip did not install the wheel:",
            log=(done.stdout + done.stderr)[-2000:],
            where=index,
        )
    return python
