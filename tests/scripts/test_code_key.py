"""code_key: the modules of a job are found from what it imports, not from a list."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from flashinfer_build.pipeline.code_key import closure, code_key


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A package of a few modules that import each other in every way."""
    files = {
        "__init__.py": "",
        "first.py": "from . import second\nfrom .sub import third\nimport conda_bridge.fourth\n",
        "second.py": "def late():\n    from conda_bridge import fifth\n",
        "fourth.py": "import os\nWORKER = ['-m', 'conda_bridge.worker']\n",
        "fifth.py": "from pathlib import Path\nOPS = Path(__file__).with_name('copied.py')\n",
        "worker.py": "",
        "copied.py": "",
        "apart.py": "from . import first\n",
        "sub/__init__.py": "",
        "sub/third.py": "from ..sixth import name\nfrom .seventh import other\n",
        "sub/seventh.py": "",
        "sub/apart.py": "",
        "sixth.py": "from . import first\n",
    }
    for name, text in files.items():
        path = tmp_path / "conda_bridge" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_everything_imported_named_or_copied_counts_and_nothing_else(scripts: Path) -> None:
    package = scripts / "conda_bridge"
    found = {path.relative_to(package).as_posix() for path in closure(scripts, ["first"])}
    everything = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert everything - found == {"apart.py", "sub/apart.py"}


@pytest.mark.parametrize("name", ["first.py", "worker.py", "copied.py", "sub/seventh.py"])
def test_a_change_in_any_of_them_changes_the_key(scripts: Path, name: str) -> None:
    before = code_key(scripts, ["first"])
    with (scripts / "conda_bridge" / name).open("a") as stream:
        stream.write("x = 1\n")
    assert code_key(scripts, ["first"]) != before
    after = code_key(scripts, ["first"])
    with (scripts / "conda_bridge" / "apart.py").open("a") as stream:
        stream.write("x = 1\n")
    assert code_key(scripts, ["first"]) == after


def test_a_module_that_is_not_there_is_not_an_empty_list(scripts: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no module nothing"):
        closure(scripts, ["nothing"])


def test_what_python_itself_imports_is_found(root: Path) -> None:
    """Against the interpreter: every module of the package that is there after the import."""
    scripts = root / "scripts"
    for module in ("verify", "bridge", "try_out", "toolchain.assembled"):
        __import__(f"conda_bridge.{module}")
        found = set(closure(scripts, [module]))
        for path in found:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.level == 1:
                    imported = path.parent / f"{(node.module or '').replace('.', '/')}.py"
                    assert not imported.is_file() or imported in found
        assert Path(sys.modules[f"conda_bridge.{module}"].__file__ or "") in found
    names = {path.name for path in closure(scripts, ["builder", "try_out"])}
    assert {"build_worker.py", "install_worker.py", "try_ops.py"} <= names
