"""Build pcipt's Debian package, the only thing that is ever installed in a dom0 of the lab.

Where the host runs the oldest release of Debian it builds it, as `make deb` does; elsewhere a small Debian
does.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from .cell import SUITES
from .chroot import copied, ensure_system
from .errors import LabError
from .payload import REPOSITORY, unpack_checkout
from .recipe import BUILD_PACKAGES

BUILD_SECONDS = 900
SCRIPT = "scripts/build-deb.sh"


def host_is(suite: str) -> bool:
    """Tell whether this machine runs that release of Debian."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME") == suite
    except OSError:
        return False


def build_package(target: Path, repository: Path = REPOSITORY) -> Path:
    """Build the package of this checkout as it stands, into a folder.

    It is built on the oldest release: every later one can install it.
    """
    if host_is(SUITES[0]):
        done = subprocess.run(
            ["sh", SCRIPT, str(target)],
            cwd=repository,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise LabError(f"the package was not built:\n{tail}")
    else:
        build_in_system(SUITES[0], target, repository)
    return find_package(target)


def build_in_system(suite: str, target: Path, repository: Path = REPOSITORY) -> None:
    """Build it in a small Debian of a release."""
    with copied(ensure_system(suite, BUILD_PACKAGES)) as system:
        unpack_checkout(system.root / "root/checkout", repository)
        system.run("sh", SCRIPT, "/root/built", cwd="/root/checkout")
        for path in (system.root / "root/built").iterdir():
            shutil.copy(path, target)


def find_package(target: Path) -> Path:
    """Name the package in the folder."""
    found = sorted(target.glob("pcipt_*.deb"))
    if len(found) != 1:
        raise LabError(f"one package was to be built in {target}, but there are {len(found)}")
    return found[0]
