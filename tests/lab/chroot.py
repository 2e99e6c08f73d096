"""Small Debian systems to build or install the package in: made once, kept beside the images, never changed.

Work is done in copies. Needs root, as mmdebstrap's simplest mode does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError, MissingToolError
from .image import cache_directory, locked, require_host_tools, run, say
from .sources import read_apt_options, read_sources

STEP_SECONDS = 600
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Chroot:
    """A system that may be changed at will."""

    root: Path

    def run(self, *words: str, cwd: str = "/", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in there.

        Raises: LabError with the last lines it said, unless it may fail.
        """
        done = subprocess.run(
            ["chroot", str(self.root), "sh", "-c", 'cd "$0" && exec "$@"', cwd, *words],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=STEP_SECONDS,
        )
        if check and done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise LabError(f"{' '.join(words)} ended with {done.returncode} in {self.root}:\n{tail}")
        return done


def ensure_system(suite: str, packages: Sequence[str]) -> Path:
    """Give a minimal Debian with these packages, making it first if it is not there."""
    if os.geteuid() != 0:
        raise MissingToolError(f"a Debian {suite} to work in needs root")
    cache = cache_directory()
    name = hashlib.sha256(" ".join([suite, *packages]).encode()).hexdigest()[:12]
    place = cache / f"{suite}-system-{name}"
    if place.is_dir():
        return place
    require_host_tools(build=True)
    with locked(cache):
        if not place.is_dir():
            say(f"making a Debian {suite} with {' '.join(packages)}")
            aside = place.with_suffix(".building")
            shutil.rmtree(aside, ignore_errors=True)
            sources = cache / "sources.list"
            sources.write_text("".join(f"{s.line()}\n" for s in read_sources(suite)), encoding="utf-8")
            command: list[str | Path] = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
            command += [f"--aptopt={option}" for option in read_apt_options()]
            run([*command, suite, aside, sources], cache / "build.log")
            aside.rename(place)
    return place


@contextmanager
def copied(system: Path) -> Iterator[Chroot]:
    """Give a copy, and throw it away afterwards."""
    place = Path(tempfile.mkdtemp(prefix="pcipt-system-", dir=system.parent))
    try:
        run(["cp", "-a", "--reflink=auto", f"{system}/.", place], system.parent / "build.log")
        yield Chroot(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
