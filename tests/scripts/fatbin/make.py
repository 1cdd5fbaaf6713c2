"""Makes the GPU code that test_fatbin.py reads, with nvcc, from kernel.cu.

    python tests/scripts/fatbin/make.py NVCC [--cuobjdump CUOBJDUMP] [--only NAME]

Each .bin is the section that nvcc put into a shared object; listing.json says with which flags,
and, where a cuobjdump was given, what that lists.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).resolve().parent
PAIR = ["8.0", "8.0+PTX", "9.0a"]
CASES: dict[str, tuple[list[str], list[str]]] = {
    # name: (architectures, further flags)
    "zstd": (PAIR, ["-Xfatbin=-compress-all"]),
    "plain": (PAIR, ["-Xfatbin=-compress-all", "-Xfatbin=-compress-mode=none"]),
    "lz4": (PAIR, ["-Xfatbin=-compress-all", "-Xfatbin=-compress-mode=speed"]),
    "relocatable": (["8.0", "9.0a"], ["-rdc=true"]),
    "blackwell": (["10.0a", "12.0f", "9.0a+PTX"], ["-Xfatbin=-compress-all"]),
    "lto": (["8.0+LTO"], ["-rdc=true"]),
}


def gencode(arch: str) -> str:
    number, _, kind = arch.replace(".", "").partition("+")
    code = {"": "sm_", "PTX": "compute_", "LTO": "lto_"}[kind] + number
    return f"-gencode=arch=compute_{number},code={code}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nvcc")
    parser.add_argument("--cuobjdump")
    parser.add_argument("--only", choices=CASES)
    args = parser.parse_args()
    listing: dict[str, dict[str, list[str]]] = {}
    for name in [args.only] if args.only else CASES:
        archs, flags = CASES[name]
        with tempfile.TemporaryDirectory() as work:
            library = Path(work) / f"{name}.so"
            command = [
                args.nvcc,
                "-c" if name == "lto" else "-shared",
                "-Xcompiler=-fPIC",
                "-cudart=none",
            ]
            command += [*map(gencode, archs), *flags, str(HERE / "kernel.cu"), "-o", str(library)]
            subprocess.run(command, check=True)
            with library.open("rb") as stream:
                elf = ELFFile(stream)
                for section in (".nv_fatbin", "__nv_relfatbin"):
                    found = elf.get_section_by_name(section)
                    if found:
                        (HERE / f"{name}.bin").write_bytes(found.data())
            listing[name] = {
                "codes": sorted(gencode(arch).rpartition("code=")[2] for arch in archs)
            }
            if args.cuobjdump:
                command = [args.cuobjdump, "--list-elf", "--list-ptx", str(library)]
                text = subprocess.run(command, capture_output=True, text=True).stdout
                listed = re.findall(r"\.(sm_\w+)\.(ptx|cubin)$", text, re.MULTILINE)
                listing[name]["cuobjdump"] = sorted(f"{arch} {kind}" for arch, kind in listed)
    if args.only:
        return
    (HERE / "listing.json").write_text(json.dumps(listing, indent=1) + "\n")


if __name__ == "__main__":
    main()
