"""The wheelhouse of a node's image: all that Skep needs at run time, and Skep itself.

    python deploy/image/wheels.py FOLDER [--arch amd64|arm64] [--python 3.11]

Packages and hashes are those of constraints.txt, without what only developers need. What is there
as a wheel is fetched as a wheel of the wanted architecture, whatever this machine is; the few that
come as source only are pure Python and are built here. `requirements.txt` beside the wheels pins
each of them by its own hash, so that the image is installed from these very files.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# These have no wheels. That there is no machine code in one that is built here is checked.
SOURCE_ONLY = {"pysyncobj"}
# What wheels call an architecture, and the C libraries that the image's Debian is new enough for.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PLATFORMS = (
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_24",
    "manylinux_2_28",
    "manylinux_2_34",
)
# What Skep's own wheel is made of.
OWN = ("skep", "manager", "worker", "netproxy", "pyproject.toml", "README.md", "MANIFEST.in")

_PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==")
_NEEDED_BY = re.compile(r" +# +(?:via )?([a-z0-9][a-z0-9._-]*)")


def needed_at_run_time(constraints: str, roots: list[str]) -> dict[str, str]:
    """The pins, hashes included, by name, of these packages and of all that they need."""
    pins: dict[str, str] = {}
    needed_by: dict[str, set[str]] = {}
    name = ""
    for line in constraints.splitlines():
        if begins := _PIN.match(line):
            name = begins[1]
            pins[name], needed_by[name] = "", set()
        if who := _NEEDED_BY.fullmatch(line):
            needed_by[name].add(who[1])
        elif not line.lstrip().startswith("#"):
            pins[name] += line + "\n"
    wanted = {re.split(r"[^A-Za-z0-9._-]", root)[0].lower() for root in roots}
    if missing := wanted - pins.keys():
        raise SystemExit(f"constraints.txt lacks {', '.join(sorted(missing))}; run 'make lock'")
    while more := {each for each in pins if needed_by[each] & wanted} - wanted:
        wanted |= more
    return {each: pins[each] for each in sorted(wanted)}


def pip(*words: str, text: str = "") -> None:
    """Run pip, which knows from its own configuration where packages are, with requirements."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(text)
        requirements.flush()
        listed = ("-r", requirements.name) if text else ()
        command = (sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check")
        subprocess.run((*command, *words, *listed), check=True)


def fill(folder: Path, arch: str, python: str) -> None:
    """Put the wheels into the folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = needed_at_run_time((ROOT / "constraints.txt").read_text(), project["dependencies"])
    hashed = ("--no-deps", "--require-hashes")
    machine = MACHINES[arch]
    target = [f"--platform={platform}_{machine}" for platform in PLATFORMS]
    target += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    text = "".join(pin for name, pin in pins.items() if name not in SOURCE_ONLY)
    pip("download", *hashed, *target, f"--dest={folder}", text=text)
    built = ("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}")
    text = "".join(pin for name, pin in pins.items() if name in SOURCE_ONLY)
    pip(*built, "--require-hashes", text=text)
    with tempfile.TemporaryDirectory() as copy:
        # What building leaves behind stays out of the working tree.
        for name in OWN:
            if (ROOT / name).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, Path(copy, name), symlinks=True, ignore=leave)
            else:
                shutil.copy2(ROOT / name, copy)
        pip(*built, copy)


def pin(folder: Path) -> str:
    """requirements.txt for what is in the folder."""
    lines = []
    for wheel in sorted(folder.glob("*.whl")):
        name, version, *_, platform = wheel.stem.split("-")
        if name.lower() in SOURCE_ONLY and platform != "any":
            raise SystemExit(f"{wheel.name} is for {platform} alone; it must be pure Python")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return "".join(lines)


def main() -> None:
    """Fill an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", choices=MACHINES, required=True)
    parser.add_argument("--python", default="3.11", help="the image's own; default: %(default)s")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if any(options.folder.glob("*.whl")):
        raise SystemExit(f"{options.folder} has wheels already; name an empty folder")
    fill(options.folder, options.arch, options.python)
    (options.folder / "requirements.txt").write_text(pin(options.folder))


if __name__ == "__main__":
    main()
