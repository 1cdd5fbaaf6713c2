"""``[tool.conda-bridge]``: what is wrong is named with its key, its path and what was expected."""

import sys
import textwrap

import pytest

from conda_bridge import config
from conda_bridge.config import Config, find, read
from conda_bridge.errors import ConfigError, LabelError
from conda_bridge.hooks import Hooks
from conda_bridge.project import Project


def _written(folder, text, name="pyproject.toml"):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_every_key_is_read(tmp_path):
    path = _written(
        tmp_path,
        """\
        [tool.conda-bridge]
        package = "toy"
        wheel-name = "toy-kernels"
        platform-tag = "manylinux_2_28_x86_64"
        index-layout = "{cuda}"
        files = { "share/" = "toy/share/" }
        provided-by.torch = ["libc10*.so"]
        dependencies = { pytorch = "torch", zlib = { drop = "linked in" } }
        [tool.conda-bridge.label]
        build = "{cuda}_{number}"
        local = "{cuda}"
        fields.cuda = { form = "cu{n}" }
        [[tool.conda-bridge.fold]]
        package = "libtoy"
        """,
    )
    project = Project.load(path)
    assert project.config.wheel_name == "toy-kernels"
    assert project.config.dependencies["zlib"].drop == "linked in"
    assert project.config.provided_by == {"torch": ("libc10*.so",)}
    assert project.folds == {"libtoy": None}
    assert project.scheme.wheel_version(project.scheme.label("1.0", {"cuda": "12"})) == "1.0+cu12"
    assert project.layout.format({"cuda": "12"}) == "cu12"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('wheel-nam = "x"', "", "no key 'wheel-nam'.*write 'wheel-name'"),
        ("package = 3", "package", "is a whole number.*expected: a string"),
        ('fold = [{ pakage = "x" }]', "fold[0]", "write 'package'|'package' is missing"),
        ('fold = [{ package = "x", files = 1 }]', "fold[0].files", "expected: a table"),
        ('label = { build = "x" }', "label", "'local' is missing"),
        ('dependencies = { a = { why = "x" } }', "dependencies", "no key 'why'"),
        ("dependencies = { a = 3 }", "dependencies", "is a whole number"),
        ('provided-by = { torch = "x" }', "provided-by", "is a string.*expected: a list"),
        ('files = { "" = "drop" }', "files", "is no path in a package"),
        ('files = { "/share/" = "drop" }', "files", "is no path in a package"),
        ('files = { "a/../b/" = "drop" }', "files", "is no path in a package"),
        ('files = { "share/" = "toy" }', "files.share/", "a folder of the wheel.*'toy/'"),
        ('files = { "etc/a" = "toy/" }', "files.etc/a", "a file of the wheel.*'toy/a'"),
        ('files = { "etc/a" = "" }', "files.etc/a", "a file of the wheel.*'a'"),
        ('files = { "share/" = "../toy/" }', "files.share/", "no path in a wheel"),
        ('files = { "share/" = "/toy/" }', "files.share/", "no path in a wheel"),
        ('files = { "share/" = ".data/other/" }', "files.share/", "no installer knows"),
        ('files = { "share/" = ".dist-info/x/" }', "files.share/", "sboms/"),
        ('files = { "share/" = ".data/" }', "files.share/", "no installer knows"),
        (
            'fold = [{ package = "x", files = { "lib/" = "y" } }]',
            "fold[0].files.lib/",
            "a folder of the wheel",
        ),
        ('fold = [{ package = "x" }, { package = "x" }]', "fold[1].package", "there already"),
        ('package = "x"\nfold = [{ package = "x" }]', "fold[0].package", "the main package"),
        (
            'label = { build = "a", local = "b", fields = { c = { least = "1" } } }',
            "label.fields.<key>.least",
            "expected: a whole number",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path, text, place, words):
    path = _written(tmp_path, f"[tool.conda-bridge]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.where.startswith(str(path))
    assert place in caught.value.where
    import re

    assert re.search(words, str(caught.value), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"a = ", "is not TOML"), (b"\xff", "is not TOML"), (b"[tool.other]", "has no table")],
)
def test_files_without_a_table(tmp_path, text, words):
    path = tmp_path / "pyproject.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "nothing.toml")


def test_a_file_of_its_own_has_the_table_at_its_top(tmp_path):
    assert read(_written(tmp_path, 'package = "a"', "a.toml")).package == "a"
    nested = _written(tmp_path, '[tool.conda-bridge]\npackage = "b"', "b.toml")
    assert read(nested).package == "b"


def test_the_nearest_table_above_is_found(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    _written(tmp_path / "a", "[tool.other]")
    path = _written(tmp_path, "[tool.conda-bridge]")
    assert find(inner) == path


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("nothing = 1", "package, wheel-name, generator, platform-tag, license"),
        (
            "label = { build = 'a', local = 'b', nothing = 1 }",
            "build, local, fields, rank, rank-step",
        ),
        (
            "label = { build = 'a', local = 'b', fields = { c = { nothing = 1 } } }",
            "form, choices, characters, least, most, none, depends",
        ),
        ("[[tool.conda-bridge.fold]]\npackage = 'a'\nnothing = 1", "package, build, files"),
        ("dependencies = { a = { drop = 'b', nothing = 1 } }", "drop"),
    ],
)
def test_an_unknown_key_is_answered_with_the_keys_of_its_table(tmp_path, text, keys):
    with pytest.raises(ConfigError) as caught:
        read(_written(tmp_path, f"[tool.conda-bridge]\n{text}\n"))
    assert caught.value.what == "there is no key 'nothing'"
    assert caught.value.expected.startswith(keys)
    assert caught.value.expected == keys or keys.startswith("package, wheel-name")
    assert caught.value.fix == "", "no key is near it"


def test_two_types_that_a_value_may_have_are_in_words(tmp_path):
    path = _written(tmp_path, "[tool.conda-bridge]\ndependencies = { a = 1 }\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.what == "is a whole number"
    assert set(caught.value.expected.split(" or ")) == {"a string", "a table"}


def test_the_whole_table_is_named_where_it_is_of_another_type(tmp_path):
    path = _written(tmp_path, "[tool]\nconda-bridge = 1\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.where == f"{path}: tool.conda-bridge"


def test_without_a_table_the_defaults_hold():
    project = Project.load(None)
    assert project.config == Config()
    assert project.config.platform_tag == "auto"
    project.check_name("whatever", "x")


def test_other_packages_than_the_tables_are_refused():
    project = Project.of(config.parse({"package": "toy", "fold": [{"package": "libtoy"}]}, "x"))
    project.check_name("libtoy", "x")
    with pytest.raises(LabelError, match="toy or libtoy") as caught:
        project.check_name("other", "other-1.0-0.conda")
    assert caught.value.where == "other-1.0-0.conda"
    assert caught.value.what == "'other' is not a package of this project"
    assert "--no-config" in caught.value.fix


@pytest.mark.parametrize("key", ["label", "index-layout"])
def test_a_template_is_proved_when_the_table_is_read(tmp_path, key):
    text = {
        "label": 'label = { build = "{v}{number}", local = "{v}", fields.v = { form = "{n}" } }',
        "index-layout": 'index-layout = "{nothing}"',
    }[key]
    path = _written(tmp_path, f"[tool.conda-bridge]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        Project.load(path)
    assert f"{path}: tool.conda-bridge.{key}" in caught.value.where


def test_hooks_are_a_module_of_the_projects_own(tmp_path, monkeypatch):
    (tmp_path / "toy_hooks.py").write_text(
        "from conda_bridge.hooks import Hooks\nclass H(Hooks): pass\nHOOKS = H()\n"
    )
    (tmp_path / "toy_none.py").write_text("HOOKS = 3\n")
    (tmp_path / "toy_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(Project.of(Config(hooks="toy_hooks")).hooks, Hooks)
    for module, words in (
        ("toy_none", "HOOKS of toy_none is int"),
        ("toy_broken", "ZeroDivisionError"),
        ("toy_missing", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=words):
            Project.of(Config(hooks=module))


def test_hooks_are_imported_only_where_code_may_run_and_beside_the_table(tmp_path, monkeypatch):
    """Without a file there is no folder to look in: what lies in the current one is not run."""
    text = "from conda_bridge.hooks import Hooks\nclass H(Hooks): pass\nHOOKS = H()\n"
    for folder, name in (("project/tools", "toy_beside"), (".", "toy_here")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    table = '[tool.conda-bridge]\nhooks = "toy_beside"\nhooks-path = "tools"\n'
    path = _written(tmp_path / "project", table)
    assert type(Project.load(path, hooks=False).hooks) is Hooks
    assert "toy_beside" not in sys.modules
    assert type(Project.load(path).hooks).__name__ == "H"
    with pytest.raises(ConfigError, match="cannot be imported"):
        Project.of(Config(hooks="toy_here"))
    assert type(Project.of(Config()).hooks) is Hooks, "a table without any"
