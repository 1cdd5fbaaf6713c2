"""The workflows call programs and nothing else: no version, name or decision lives in YAML."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import urllib.request
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factories
import programs
import pytest
import s3_server
import toy_artifacts
import yaml

from flashinfer_build.label import Label
from flashinfer_build.matrix import release_gate
from flashinfer_build.matrix.promises import Promise

WORKFLOWS = Path(__file__).resolve().parents[2] / ".github" / "workflows"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_ALLOWED = re.compile(r"matrix\.[a-z_]+|inputs\.(event|options)|vars\.PUBLISH_TO")
# Where to, which the repository's owner sets.
_TARGET = "s3://bucket/some/where"
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
                values["vars.PUBLISH_TO"] = _TARGET
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


def _publishers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The workflow, the job that publishes for good, and the one before it."""
    for path in _files():
        jobs = _read(path)["jobs"]
        for job in jobs.values():
            if any("PUBLISH_TO" in str(step.get("run")) for step in job.get("steps", ())):
                yield path.name, job, jobs[job["needs"]]


def _lines(job: dict[str, Any], event: str, target: str) -> list[list[str]]:
    """The words of its steps."""
    values = {"inputs.event": event, "vars.PUBLISH_TO": target}
    lines = [step["run"] for step in job["steps"] if "run" in step]
    return [shlex.split(_EXPRESSION.sub(lambda hit: values[hit[1]], line)) for line in lines]


def test_nothing_is_published_but_what_the_gate_let_through() -> None:
    jobs = _read(WORKFLOWS / "build.yml")["jobs"]
    assert set(jobs["gate"]["needs"]) == {"plan", "kernels", "bindings"}
    runs = [words[1:3] for words in _lines(jobs["gate"], "release", "")]
    program = "scripts/release.py"
    assert runs == [[program, verb] for verb in ("check", "publish", "publish", "history")]
    # What is kept for the publisher is kept after all of that.
    steps = jobs["gate"]["steps"]
    kept = [step for step in steps if "upload" in str(step.get("uses"))]
    assert [step["with"]["name"] for step in kept] == ["release"]
    assert steps[-1] == kept[0]
    found = {name: (job, before) for name, job, before in _publishers()}
    assert found.keys() == {"release.yml", "nightly.yml"}
    for job, before in found.values():
        assert before["uses"].endswith("/build.yml")
        assert "if" not in job, "it must not run after a failure"
        [taken] = [step for step in job["steps"] if "download" in str(step.get("uses"))]
        assert taken["with"] == {"name": "release", "path": "dist"}
        # The gate once more, beside what is published there already.
        first, *more = _lines(job, "", _TARGET)
        event = before["with"]["event"]
        assert first[1:] == [program, "publish", "dist", "--to", _TARGET, "--event", event]
        assert [words[1:3] for words in more] == ([[program, "prune"]] if more else [])


def test_only_a_publisher_has_the_keys() -> None:
    """A pull request's code runs in the other jobs."""
    for path in _files():
        for name, job in _read(path)["jobs"].items():
            secret = "secrets" in str(job) or "vars." in str(job) or "environment" in job
            assert secret == (name == "publish"), f"{path.name}: {name}"
            assert not (secret and "permissions" in job)
        assert "secrets" not in str(
            {key: value for key, value in _read(path).items() if key != "jobs"}
        )


RELEASE = Label.public_version_of(environ={})
NIGHTLY = {"public_version": f"{RELEASE}.dev20261130", "commit": "1a2b3c4"}


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    server = s3_server.Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3_server.ENVIRON, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/bucket", method="PUT")).close()
        yield server
    server.stop()


@pytest.mark.parametrize("workflow", ["release.yml", "nightly.yml"])
def test_the_steps_publish_what_is_whole_and_nothing_else(
    workflow: str,
    server: s3_server.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands of the gate and of the publisher, as they are written, on toy artifacts."""
    [(job, before)] = [(job, before) for name, job, before in _publishers() if name == workflow]
    event, target = before["with"]["event"], f"s3://bucket/{workflow}"
    labels = [
        factories.label_of(name, **(NIGHTLY if event == "nightly" else {"public_version": RELEASE}))
        for name in ("cpu_torch213", "cu130_torch213")
    ]
    promises = [
        Promise(labels[0].variant, "None"),
        Promise(labels[1].variant, "8.0+PTX;9.0a"),
    ]
    monkeypatch.setattr(release_gate, "promised", lambda *_: promises)
    monkeypatch.chdir(tmp_path)
    for label in labels:
        toy_artifacts.write_release(tmp_path / "dist", label)
    gate = _read(WORKFLOWS / "build.yml")["jobs"]["gate"]

    def run(lines: list[list[str]]) -> list[int]:
        ended = [programs.run(Path(words[1]).stem, *words[2:]) for words in lines]
        print(*(one.both.decode() for one in ended), sep="\n")
        return [one.code for one in ended]

    def published() -> set[str]:
        said = json.loads(programs.run("release", "history", "--to", target, "--json").out)
        return {Path(item["file"]).name for item in said["files"]}

    assert run(_lines(gate, event, target)) == [0, 0, 0, 0]
    publish = _lines(job, event, target)
    [wheel] = tmp_path.glob("dist/wheels/*cu130*.whl")
    data = wheel.read_bytes()
    wheel.unlink()
    assert run(publish)[0] == 1
    assert published() == set()
    wheel.write_bytes(data)
    # And once more, as a job that is started again.
    assert {*run(publish), *run(publish)} == {0}
    assert published() == {path.name for path in tmp_path.glob("dist/**/*") if path.is_file()}


def test_every_job_has_a_time_limit_and_the_least_rights() -> None:
    for path in _files():
        workflow = _read(path)
        if "workflow_call" not in workflow[True]:  # YAML reads `on` as a truth value
            assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert "timeout-minutes" in job or "uses" in job, f"{path.name}: {name}"
