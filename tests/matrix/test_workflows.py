"""The workflows call programs and nothing else: no version, name or decision lives in YAML."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).resolve().parents[2] / ".github" / "workflows"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_ALLOWED = re.compile(r"matrix\.[a-z_]+|inputs\.(event|options)")
# An action of GitHub's at a commit, with the tag for people, or a workflow of our own.
_USES = re.compile(r"actions/[a-z-]+@[0-9a-f]{40}|\./\.github/workflows/[a-z_]+\.yml")


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def _files() -> list[Path]:
    return sorted(WORKFLOWS.iterdir())


def _steps() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for path in _files():
        for name, job in _read(path)["jobs"].items():
            for step in job.get("steps", ()):
                yield path, name, step


def _commands() -> list[tuple[str, str]]:
    return [
        (path.name, line)
        for path, _job, step in _steps()
        if "run" in step
        for line in step["run"].splitlines()
    ]


def _substituted(line: str) -> list[list[str]]:
    """The line's words for everything that its expressions may stand for."""
    golden = WORKFLOWS.parents[1] / "tests" / "matrix" / "golden"
    found = []
    for path in _files():
        for job in _read(path)["jobs"].values():
            if not str(job.get("uses", "")).startswith("./"):
                continue
            event, options = job["with"]["event"], job["with"].get("options", "")
            rows = json.loads((golden / f"{event}.json").read_text())
            for row in (*rows["kernels"], *rows["bindings"]):
                values = {f"matrix.{key}": value for key, value in row.items()}
                values |= {"inputs.event": event, "inputs.options": options}
                if all(name in values for name in _EXPRESSION.findall(line)):
                    text = _EXPRESSION.sub(lambda hit, v=values: v[hit[1]], line)  # type: ignore[misc]
                    found.append(shlex.split(text))
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def _parser(root: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> ArgumentParser:
    monkeypatch.setenv("FLASHINFER_NO_BOOTSTRAP", "1")
    path = root / "scripts" / program
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser: ArgumentParser = module._parser()
    for one in (parser, *_below(parser)):
        one.allow_abbrev = False  # an option that is misspelt at its end is no option
    return parser


def _below(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            yield from action.choices.values()


def test_the_workflows_are_there() -> None:
    names = {path.name for path in _files()}
    assert {"pull_request.yml", "nightly.yml", "release.yml"} <= names
    assert len(_commands()) >= 8


@pytest.mark.parametrize(("name", "line"), _commands())
def test_a_step_runs_one_program_and_the_shell_has_nothing_to_do(
    root: Path, name: str, line: str
) -> None:
    plain = _EXPRESSION.sub("x", line)
    assert re.fullmatch(r"python scripts/[a-z_]+\.py( [-\w./]+)*", plain), line
    assert (root / shlex.split(plain)[1]).is_file()
    for expression in _EXPRESSION.findall(line):
        assert _ALLOWED.fullmatch(expression), expression
    assert not re.search(r"\d\.\d|cu\d|torch\d", plain), f"{name}: a version in {line}"


@pytest.mark.parametrize(("name", "line"), _commands())
def test_the_program_takes_the_options(
    root: Path, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _substituted(line)
    assert calls, f"{name}: nothing fills {line}"
    parser = _parser(root, Path(calls[0][1]).name, monkeypatch)
    for words in calls:
        parser.parse_args(words[2:])  # ends the test where it does not


def test_actions_are_pinned_by_commit() -> None:
    for path in _files():
        for line in path.read_text().splitlines():
            if "uses:" in line:
                used, _, comment = line.partition("uses:")[2].strip().partition(" # ")
                assert _USES.fullmatch(used), f"{path.name}: {line}"
                assert used.startswith("./") or re.fullmatch(r"v\d+\.\d+\.\d+", comment), line


def test_nothing_is_published_but_what_the_gate_let_through() -> None:
    jobs = _read(WORKFLOWS / "build.yml")["jobs"]
    assert set(jobs["gate"]["needs"]) == {"plan", "kernels", "bindings"}
    runs = [step["run"].split()[1] for step in jobs["gate"]["steps"] if "run" in step]
    assert runs == ["scripts/release.py", "scripts/release.py", "scripts/index.py"]
    kept = [step for step in jobs["gate"]["steps"] if "pages" in str(step.get("uses"))]
    assert jobs["gate"]["steps"].index(kept[0]) > 5
    for path in _files():
        for name, job in _read(path)["jobs"].items():
            if any("deploy" in str(step.get("uses")) for step in job.get("steps", ())):
                assert path.name == "release.yml"
                [needed] = [job["needs"]] if isinstance(job["needs"], str) else job["needs"]
                assert _read(path)["jobs"][needed]["uses"].endswith("/build.yml")
                assert "if" not in job, f"{name} must not run after a failure"


def test_every_job_has_a_time_limit_and_the_least_rights() -> None:
    for path in _files():
        workflow = _read(path)
        if "workflow_call" not in workflow[True]:  # YAML reads `on` as a truth value
            assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert "timeout-minutes" in job or "uses" in job, f"{path.name}: {name}"
