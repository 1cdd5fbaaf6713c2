"""The processes of the contestants: their protocol, their deaths, the order in which they run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import report, run
from benchmarks.gpu.cases import Case, case
from benchmarks.gpu.peers import Died, Worker

# A contestant without torch: the protocol is what is tested. It says what it does on a file.
TOY = """
import json, os, sys, time
name, log = sys.argv[-1], open({log!r}, "a")
for line in sys.stdin:
    request = json.loads(line)
    side = request.get("side")
    log.write(f"{{request['do']}} {{side or ''}}\\n"); log.flush()
    answer = {{}}
    if request["do"] == "prepare":
        if "poison" in request["sides"]: os._exit(9)
        if len(request["sides"]) > 3: os._exit(8)
        answer = {{"sets": 2, "sides": {{
            side: {{"reason": "not here"}} if side == "missing"
            else {{"error": 0.001, "how": "graph", "note": ""}} for side in request["sides"]}}}}
    if request["do"] == "sample":
        if side == "crash": os._exit(7)
        if side == "hang": time.sleep(60)
        if side == "fatal": answer = {{"reason": "CUDA error: illegal access", "fatal": True}}
        if side == "garbled": print("x" * 200000 + "y", flush=True, file=sys.stderr)
        answer.setdefault("seconds", {{"slow": 3e-6}}.get(side, 2e-6))
    if request["do"] == "ceilings": answer = {{"copy": 1e12, "matmul": 1e14}}
    if request["do"] == "hello":
        answer = {{"device": None, "python": "3", "torch": "2", "version": "1.0", "reason": "none"}}
    print(json.dumps(answer), flush=True)
"""
CASE = case("g", "rmsnorm", rows=4, hidden=8)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def program(tmp_path: Path, log: Path) -> Path:
    path = tmp_path / "toy_worker.py"
    path.write_text(TOY.format(log=str(log)))
    return path


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.close()


def worker(program: Path, *sides: str, **settings: Any) -> Worker:
    return Worker("toy", "cpu", lambda _op: sides, program=program, **settings)


def test_questions_and_answers(program: Path, workers: list[Worker]) -> None:
    toy = worker(program, "a")
    workers.append(toy)
    assert toy.ask("sample", side="a") == {"seconds": 2e-6}
    assert toy.ask("sample", side="garbled") == {"seconds": 2e-6}
    assert toy.ask("sample", side="slow") == {"seconds": 3e-6}
    assert toy.close() == 0
    assert toy.close() is None


@pytest.mark.parametrize(
    ("side", "text"),
    [
        ("crash", "the process ended with exit status 7 while asked to sample"),
        ("fatal", "CUDA error: illegal access"),
        ("hang", "no answer within 2 s"),
    ],
)
def test_a_death_is_told_and_the_next_question_answered(
    side: str, text: str, program: Path, workers: list[Worker]
) -> None:
    toy = worker(program, side, timeout=2)
    workers.append(toy)
    with pytest.raises(Died, match=text):
        toy.ask("sample", side=side)
    assert toy.ask("sample", side="a") == {"seconds": 2e-6}


def test_order_alternates_and_a_lost_side_is_skipped(
    program: Path, log: Path, workers: list[Worker]
) -> None:
    workers += [worker(program, "a"), worker(program, "b", "missing", "c")]
    entries = run.prepare(CASE, workers)
    log.write_text("")
    run.sample(entries, 4)
    asked = [line.split()[1] for line in log.read_text().splitlines()]
    assert asked == ["a", "b", "c", "c", "b", "a", "a", "b", "c", "c", "b", "a"]
    results = {result.side: result for _, result in entries}
    assert results["a"].seconds == [2e-6] * 4
    assert results["missing"].reason == "not here"


def test_what_dies_while_timed_stays_in_the_table(program: Path, workers: list[Worker]) -> None:
    workers += [worker(program, "flashinfer"), worker(program, "a", "crash")]
    entries = run.prepare(CASE, workers)
    run.sample(entries, 3)
    row = report.summarise(CASE, [result for _, result in entries], report.Ceilings(1e12, 1e14))
    ours, a, crash = row["sides"]
    assert (ours["samples"], a["us"], crash["us"]) == (3, None, None)
    assert "exit status 7" in a["reason"] and "exit status 7" in crash["reason"]


def test_only_the_side_that_kills_the_process_is_lost(program: Path, workers: list[Worker]) -> None:
    workers.append(worker(program, "a", "poison", "missing", "b"))
    entries = run.prepare(CASE, workers)
    run.sample(entries, 1)
    results = {result.side: result for _, result in entries}
    assert [results[side].seconds for side in ("a", "b")] == [[2e-6], [2e-6]]
    assert results["poison"].reason == "the process ended with exit status 9 while asked to prepare"
    assert results["missing"].reason == "not here"


def test_sides_that_do_not_go_together(program: Path, workers: list[Worker]) -> None:
    workers.append(worker(program, "a", "b", "c", "d"))
    reasons = {result.reason for _, result in run.prepare(CASE, workers)}
    assert reasons == {
        "together with the others: the process ended with exit status 8 while asked to prepare"
    }


def test_a_whole_run(program: Path, workers: list[Worker]) -> None:
    workers += [worker(program, "flashinfer"), worker(program, "slow", "missing")]
    kept: list[dict[str, Any]] = []
    result = run.measure([CASE, CASE], workers, 3, lambda _line: None, kept.append)
    assert [len(found["rows"]) for found in kept] == [1, 2, 2]
    assert [found["complete"] for found in kept] == [False, False, True]
    assert result["ceilings"]["best"] == {"copy_gbps": 1000, "matmul_tflops": 100}
    assert result["published"] == "not given (--peer-site)"
    assert result["rows"][0]["speedup"] == pytest.approx(1.5)
    lines: list[str] = []
    run.show(result, [CASE, CASE], lines.append)
    assert sum("not measured: not here" in line for line in lines) == 2
    assert lines[-1] == "0 of 0 targets met, 0 cases failed"


def test_no_gpu_is_the_end(program: Path, workers: list[Worker]) -> None:
    for _ in range(2):
        found = worker(program, "flashinfer")
        found.device = "cuda"
        workers.append(found)
    with pytest.raises(Died, match="none"):
        run.measure([CASE], workers, 1, lambda _line: None)


def options(**given: Any) -> argparse.Namespace:
    defaults = {"device": "cpu", "timeout": 60, "rotated": 0, "peer_site": None, "without": []}
    return argparse.Namespace(**{**defaults, **given})


def test_who_takes_part(tmp_path: Path) -> None:
    ours, torch = run.contestants(options())
    assert (ours.library, ours.site, torch.library) == ("flashinfer", "", "")
    *_, published = run.contestants(options(peer_site=tmp_path))
    assert published.site == str(tmp_path)
    assert published.sides("batch_decode") == ["published", "published-tc"]
    assert published.sides("rmsnorm") == ["published"]
    without = run.contestants(options(without=["flex", "compile"]))
    assert without[1].sides("single_prefill") == ["sdpa-flash", "sdpa-cudnn"]
    assert without[1].sides("rmsnorm") == ["torch"]


def test_a_published_wheel_in_its_own_process(
    toy_site: Path, tmp_path: Path, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ours, of the same name, is on the path as well, and one that prints and is wrong.
    ours = tmp_path / "ours" / "flashinfer"
    ours.mkdir(parents=True)
    (ours / "__init__.py").write_text(
        "__version__ = '0.0.ours'\nprint('{\"reason\": \"not an answer\"}')\n"
        "def rmsnorm(x, weight, eps, out): return out.fill_(0.5)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ours.parent))
    workers += run.contestants(options(peer_site=toy_site, without=["compile"]))
    cases: list[Case] = [
        CASE,
        case("g", "batch_decode", batch=2, qo=1, kv=20, page=16, causal=0, heads=2, kv_heads=1,
             dim=64),
    ]  # fmt: skip
    result = run.measure(cases[:1], workers, 2, lambda _line: None)
    assert result["flashinfer"] == {"version": "0.0.ours"}
    assert result["published"] == "0.0.toy"
    sides = {side["side"]: side for side in result["rows"][0]["sides"]}
    assert sides["flashinfer"]["wrong"] and sides["flashinfer"]["us"] is None
    assert sides["published"]["us"] > 0
    assert sides["torch"]["us"] > 0
    json.dumps(result, allow_nan=False)
    found = workers[2].ask(
        "prepare", op=cases[1].op, shape=dict(cases[1].shape), bytes=cases[1].bytes,
        sides=["published"],
    )  # fmt: skip
    assert found["sides"]["published"]["error"] < 0.03


def test_a_peer_site_without_the_package(tmp_path: Path, workers: list[Worker]) -> None:
    (tmp_path / "elsewhere" / "nosuch").mkdir(parents=True)
    (tmp_path / "elsewhere" / "nosuch" / "__init__.py").write_text("")
    empty = tmp_path / "empty"
    empty.mkdir()
    found = Worker("p", "cpu", lambda _op: ("published",), library="json", site=str(empty))
    workers.append(found)
    with pytest.raises(Died, match=r"json comes from .*, not "):
        found.ask("hello")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--peer-site", "/no/such"], "--peer-site: /no/such is not a folder"),
        (["--only", "nonsense"], "--only: no case has 'nonsense' in its name"),
        (["--without", "flashinfer"], "invalid choice"),
    ],
)
def test_wrong_command_lines(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--list", "--only", "merge_states"])
    assert run.main() == 0
    assert capsys.readouterr().out == ("merge: merge_states rows=2048 states=8 heads=32 dim=128\n")
