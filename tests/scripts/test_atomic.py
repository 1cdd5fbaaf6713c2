"""atomic: whole or not at all, also when the process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from conda_bridge.system import atomic


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_text(target, "old")
    with pytest.raises(RuntimeError), atomic.writing(target) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_new_file_has_its_mode(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "sub" / "a.bin", b"x")
    assert (tmp_path / "sub" / "a.bin").stat().st_mode & 0o777 == 0o644


def test_a_kill_while_writing_leaves_the_old_bytes(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    atomic.write_bytes(target, b"old")
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from conda_bridge.system import atomic
        with atomic.writing(Path(sys.argv[1])) as stream:
            stream.write(b"new" * 1000)
            stream.flush()
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(target)],
        env={**os.environ, "PYTHONPATH": str(root / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert target.read_bytes() == b"old"
    [left] = [path.name for path in tmp_path.iterdir() if path != target]
    assert left.startswith(".partial-")
    atomic.write_bytes(tmp_path / "another.bin", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "another.bin"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic.directory(target) as fresh:
        (fresh / "a").write_text("1")
        raise RuntimeError
    assert not target.exists()
    with atomic.directory(target) as fresh:
        (fresh / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with atomic.directory(target) as fresh:  # somebody else was faster: theirs stays
        (fresh / "a").write_text("2")
    assert (target / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with atomic.lock(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


_HOLDS = """
import sys, time
from pathlib import Path
from conda_bridge.system import atomic
folder = Path(sys.argv[1])
with atomic.writing(folder / "file") as stream, atomic.directory(folder / "folder") as fresh:
    (fresh / "a").write_text("1")
    stream.write(b"half")
    stream.flush()
    print("working", flush=True)
    sys.stdin.readline()
"""


def test_what_somebody_works_on_is_left_alone_until_it_dies(root: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root / "scripts")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"working\n"
        with atomic.scratch(tmp_path):
            pass
        assert len(list(tmp_path.glob(".partial-*"))) == 2
        child.kill()
    with atomic.scratch(tmp_path) as own:
        assert list(tmp_path.glob(".partial-*")) == [own]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_lock_is_somebodys_first_moment_unless_it_is_old(tmp_path: Path) -> None:
    for name, age in (("new", 0.0), ("old", 7200.0)):
        folder = tmp_path / f".partial-{name}"
        folder.mkdir()
        moment = time.time() - age
        os.utime(folder, (moment, moment))
    atomic.write_text(tmp_path / "a", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-new", "a"]


def test_a_folder_of_a_maker_that_died_in_its_first_or_last_moment_is_removed(
    root: Path, tmp_path: Path
) -> None:
    """The file that is locked is not there yet, or not any more; the folder is locked itself."""
    program = (
        "import sys, pathlib; from conda_bridge.system import atomic;"
        "_, path = atomic._temporary_folder(pathlib.Path(sys.argv[1]));"
        "print(path, flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root / "scripts")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        moment = Path(child.stdout.readline().strip())
        atomic.write_text(tmp_path / "a", "")
        assert list(moment.iterdir()) == []  # it is there
        child.kill()
    atomic.write_text(tmp_path / "a", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folders_that_sweep_do_not_disturb_one_another(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for turn in range(30):
            with atomic.directory(tmp_path / f"{number}-{turn}") as fresh:
                (fresh / "a").write_text(f"{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = {path.name: (path / "a").read_text() for path in tmp_path.iterdir()}
    assert made == {f"{n}-{turn}": f"{turn}" for n in range(6) for turn in range(30)}


def test_writers_that_sweep_do_not_disturb_one_another(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for turn in range(30):
            atomic.write_text(tmp_path / f"{number}", f"{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        map(str, range(6)), "29"
    )
