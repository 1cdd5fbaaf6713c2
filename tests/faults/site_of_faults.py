"""A place for builds that are disturbed: checkout, cache, compiler, and how it should be.

Everything lies below one temporary folder. The wheels and the CPU torch come as links from the
project's cache, so nothing is downloaded; what a fault may hit is a copy.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conda_bridge.formats.zstd import zstd
from conda_bridge.system import atomic
from flashinfer_build import bootstrap
from flashinfer_build.pipeline.ledger import file_digest
from flashinfer_build.toolchain.lock import Lock, LockedWheel
from flashinfer_build.toolchain.unpacked import link_tree

__all__ = ["STAGES", "VARIANT", "Done", "Site"]

VARIANT = "cpu_torch213"
STAGES = (
    *("toolchain", "compiler", "library", "binding", "wheel"),
    *("verify", "try-conda", "try-pip", "publish"),
)
_SOURCES = ("csrc", "flashinfer", "recipe", "scripts", "requirements")
_FILES = (
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "conda_build_config.yaml"),
    *("pyproject.toml", "setup.py", "version.txt"),
)
_HERE = Path(__file__).parent
_NOT_RESULTS = (".part", ".lock", ".log", ".seen.json")
_TORCH = (2, 13)


@dataclass(frozen=True)
class Done:
    """A build that ended.

    Attributes:
        code: its exit status; negative for a signal.
        said: everything it printed.
        seconds: that it took.
    """

    code: int
    said: str
    seconds: float

    def __str__(self) -> str:
        return f"exit status {self.code}\n{self.said}"


@dataclass
class Site:
    """The place, after one undisturbed build.

    Attributes:
        folder: everything is below it.
        root: the checkout.
        moments: random numbers, from the seed that is printed.
        whole: the sha256 of every finished file of the undisturbed build, by path below `folder`.
        seconds: what each stage takes here.
    """

    folder: Path
    root: Path
    seed: int
    moments: random.Random
    whole: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    # ------------------------------------------------------------ the place

    @classmethod
    def make(cls, source: Path, folder: Path, seed: int) -> Site:
        """Sets it up below `folder` from the project `source` and builds once, undisturbed."""
        site = cls(folder, folder / "checkout", seed, random.Random(seed))
        site._checkout(source)
        site._compiler()
        site._cache(bootstrap.cache_dir())
        done = site.run()
        assert done.code == 0, done
        # Once more with a compiler that remembers: the times to expect, and the same bytes.
        site.whole = site.files(deep=True)
        for name in ("packages", "staging"):
            shutil.rmtree(site.build / name)
        site.check_complete(site.run(), "a second build", deep=True)
        for stage in STAGES:
            [entry] = (site.build / "ledger").rglob(f"{stage}*.json")
            site.seconds[stage] = json.loads(entry.read_text())["cost"]["seconds"]
        for name in ("build", "dist"):
            shutil.copytree(site.root / name, site.folder / "kept" / name)
        return site

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def dist(self) -> Path:
        return self.root / "dist"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def compiler(self) -> Path:
        return self.folder / "compiler"

    @property
    def wheelhouse(self) -> Path:
        """The locked wheels, where pip finds them."""
        return self.folder / "wheelhouse"

    def wheels(self) -> list[LockedWheel]:
        """What the variant needs, torch first."""
        locked = Lock.read().torch(_TORCH, "cp{}{}".format(*sys.version_info[:2]))
        torch = next(b.wheel for b in locked.builds if b.wheel.version.endswith("+cpu"))
        return [torch, *locked.requires]

    def small_wheels(self) -> list[LockedWheel]:
        """Those of at most a megabyte."""
        small = [
            w for w in self.wheels() if (self.wheelhouse / w.filename).stat().st_size < 1_000_000
        ]
        assert len(small) >= 5
        return small

    def wheel(self, wheel: LockedWheel) -> Path:
        return self.cache / "wheels" / wheel.sha256 / wheel.filename

    def tree(self, wheel: LockedWheel) -> Path:
        return self.cache / "unpacked" / wheel.sha256

    def _checkout(self, source: Path) -> None:
        unwanted = shutil.ignore_patterns("__pycache__", "_build_info.py", "*.so", "*.egg-info")
        for name in _SOURCES:
            shutil.copytree(source / name, self.root / name, ignore=unwanted)
        for name in _FILES:
            shutil.copy2(source / name, self.root / name)

    def _compiler(self) -> None:
        real = shutil.which(os.environ.get("CXX") or "g++")
        assert real is not None
        (self.compiler / "objects").mkdir(parents=True)
        (self.compiler / "calls").mkdir()
        (self.compiler / "real").write_text(f"{real}\n")
        shutil.copyfile(_HERE / "compiler.sh", self.compiler / "g++")
        (self.compiler / "g++").chmod(0o755)
        (self.compiler / "gcc").symlink_to(
            Path(real).with_name(Path(real).name.replace("++", "cc"))
        )

    def _cache(self, source: Path) -> None:
        self.wheelhouse.mkdir()
        self.cache.mkdir()
        (self.cache / "environments").symlink_to(source / "environments")
        torch = self.wheels()[0]
        for wheel in self.wheels():
            origin = source / "wheels" / wheel.sha256 / wheel.filename
            assert origin.is_file(), (
                f"{origin.name} is not in the cache: run scripts/build.py first"
            )
            self.wheel(wheel).parent.mkdir(parents=True)
            self.wheel(wheel).symlink_to(origin)
            (self.wheelhouse / wheel.filename).symlink_to(origin)
            tree = source / "unpacked" / wheel.sha256
            if wheel == torch:
                link_tree(tree, self.tree(wheel))
            else:
                shutil.copytree(tree, self.tree(wheel))

    # ------------------------------------------------------------ builds

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        environ |= {
            "FLASHINFER_CACHE_DIR": str(self.cache),
            "CXX": str(self.compiler / "g++"),
            "FLASHINFER_COMPILER_CACHE": "none",  # compiler.sh remembers, and counts
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheelhouse),
        }
        environ |= extra or {}
        return {name: value for name, value in environ.items() if value}

    def start(
        self,
        *arguments: str,
        what: tuple[str, str] = ("--variant", VARIANT),
        extra: Mapping[str, str] | None = None,
        log: str = "log.txt",
    ) -> subprocess.Popen[bytes]:
        """A build of `what` that runs; what it says goes to `log`."""
        with (self.folder / log).open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "scripts/build.py", *what, *arguments],
                cwd=self.root,
                env=self.environ(extra),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, child: subprocess.Popen[bytes], started: float, log: str = "log.txt") -> Done:
        code = child.wait(600)
        said = (self.folder / log).read_text(errors="replace")
        return Done(code, said, time.monotonic() - started)

    def run(
        self,
        *arguments: str,
        what: tuple[str, str] = ("--variant", VARIANT),
        extra: Mapping[str, str] | None = None,
    ) -> Done:
        """A build of `what`, to its end."""
        started = time.monotonic()
        return self.finish(self.start(*arguments, what=what, extra=extra), started)

    def undo(self, stage: str) -> None:
        """Takes the place back to where `stage` is due and everything else is done."""
        for name in ("build", "dist"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            shutil.copytree(self.folder / "kept" / name, self.root / name)
        for entry in (self.build / "ledger").rglob(f"{stage}*.json"):
            entry.unlink()
        gone = {
            "toolchain": [self.build / "inputs", self.cache / "packages", self.cache / "channels"],
            "compiler": [
                channel
                for channel in (self.cache / "channels").iterdir()
                if not list(channel.glob("*/pytorch-*"))
            ],
            "library": [self.build / "packages"],
            "binding": [self.build / "staging"],
            "wheel": [
                path
                for name in ("wheels", "index")
                for path in (self.build / "staging").glob(f"*/*/{name}")
            ],
            "publish": [self.dist],
        }
        for path in gone.get(stage, []):
            shutil.rmtree(path)
        if stage == "compiler":
            (self.build / "inputs" / "cpu.json").unlink()
        if stage == "toolchain":
            for wheel in self.small_wheels():
                shutil.rmtree(self.tree(wheel))
                shutil.rmtree(self.wheel(wheel).parent)
        self.forget_calls()

    def forget_calls(self) -> None:
        """Has the compiler count from one again."""
        for call in (self.compiler / "calls").iterdir():
            call.rmdir()

    def schedule(self, count: int, weights: Mapping[str, int]) -> list[str]:
        """Stages for `count` faults, in a random order: each at least once, by their weights."""
        total = sum(weights.values())
        stages = [s for s, weight in weights.items() for _ in range(-(-weight * count // total))]
        self.moments.shuffle(stages)
        return stages

    # ------------------------------------------------------------ what has to hold

    def files(self, deep: bool = False) -> dict[str, str]:
        """The sha256 of every file with a final name.

        Args:
            deep: also what is unpacked of the small wheels.
        """
        folders = [self.dist, self.build / "packages", self.build / "staging"]
        folders += [self.cache / "packages", self.cache / "channels"]
        folders += [self.wheel(wheel).parent for wheel in self.small_wheels()]
        folders += [self.tree(wheel) for wheel in self.small_wheels()] if deep else []
        found = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                relative = path.relative_to(self.folder)
                if path.name == ".seen.msgpack.zst":
                    continue  # has the times of files; what it is about is compared
                if path.is_file() and not _temporary(relative) and "__pycache__" not in path.parts:
                    found[str(relative)] = file_digest(path)
        return found

    def check_names(self, context: object, deep: bool = False) -> None:
        """Nothing that carries a final name is anything but what the undisturbed build made."""
        for name, digest in self.files(deep).items():
            # Written with one package in it, and again with two.
            document = "/channel/" in name and not name.endswith(".conda")
            if "/staging/" in name and document:
                data = (self.folder / name).read_bytes()
                data = zstd.decompress(data) if name.endswith(".zst") else data
                if ".json" in name:
                    json.loads(data)
                continue
            assert self.whole.get(name) == digest, f"{name} is not whole\n{self.words(context)}"

    def check_complete(self, done: Done, context: object, deep: bool = False) -> None:
        """The build completed, byte for byte as without a disturbance, and left nothing over."""
        words = self.words(context)
        assert done.code == 0, f"{words}\n{done}"
        files = self.files(deep)
        wanted = {n: d for n, d in self.whole.items() if deep or "/unpacked/" not in n}
        wrong = sorted(n for n in {*files, *wanted} if files.get(n) != wanted.get(n))
        assert not wrong, f"{wrong}\n{words}\n{done}"
        assert self.leftovers() == [], words

    def leftovers(self) -> list[str]:
        """What lies under temporary names where results are."""
        folders = [
            self.dist,
            *(self.build / n for n in ("packages", "staging", "inputs", "ledger")),
        ]
        found = [path for folder in folders for path in folder.rglob(f"{atomic.PREFIX}*")]
        for pattern in ("*", "packages/*", "packages/*/*", "channels/*", "channels/*/*/*"):
            found += self.cache.glob(f"{pattern}/{atomic.PREFIX}*")
        found += self.cache.glob(f"{atomic.PREFIX}*")
        found += self.cache.glob("wheels/*/*.part")
        return sorted({str(path.relative_to(self.folder)) for path in found})

    def processes(self) -> list[str]:
        """The command lines of everything that still runs in this place."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                here = str((entry / "cwd").readlink())
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, UnicodeDecodeError):
                continue
            if state != "Z" and (str(self.folder) in here or str(self.folder) in command):
                found.append(f"{entry.name} {command}")
        return found

    def quiet(self, seconds: float = 20.0) -> list[str]:
        """Waits until nothing runs here any more; what does all the same."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def words(self, context: object) -> str:
        return f"seed {self.seed}: {context}"

    # ------------------------------------------------------------ disturbances

    def kill(self, child: subprocess.Popen[bytes], group: bool) -> bool:
        """``kill -9``; whether there was something to kill."""
        if child.poll() is not None:
            return False
        if group:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.send_signal(signal.SIGKILL)
        child.wait()
        return child.returncode == -signal.SIGKILL

    def flip(self, path: Path) -> str:
        """Flips one bit of a file in place, and puts its modification time back."""
        data = bytearray(path.read_bytes())
        at = self.moments.randrange(len(data))
        data[at] ^= 1 << self.moments.randrange(8)
        facts = path.stat()
        if facts.st_nlink > 1 or path.is_symlink():  # not in the project's own cache
            fresh = path.with_name("fresh")
            fresh.write_bytes(data)
            fresh.chmod(stat.S_IMODE(facts.st_mode))
            os.replace(fresh, path)
        else:
            path.chmod(0o644 | stat.S_IMODE(facts.st_mode))
            path.write_bytes(data)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return f"{path.relative_to(self.folder)} byte {at}"


def _temporary(relative: Path) -> bool:
    return any(part.startswith(atomic.PREFIX) for part in relative.parts) or relative.name.endswith(
        _NOT_RESULTS
    )
