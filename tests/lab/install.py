"""Install pcipt in dom0 the way the README tells a user: its Debian package, and nothing else.

A PV dom0 is typed what the README says. A PVH dom0 boots from a disk where that was done, as does a user's
after a reboot: typing takes a minute more there.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from .cell import Mode
from .chroot import copied
from .errors import LabError, MissingToolError
from .image import Image, make_disk
from .machine import Dom0
from .payload import CHECKOUT_IN_DOM0, REPOSITORY

INSTALL_SECONDS = 600.0
BEFORE_BOOT: frozenset[Mode] = frozenset({"pvh"})
#: Where the package lies in dom0: one file, whatever its version.
PACKAGES_IN_DOM0 = f"{CHECKOUT_IN_DOM0}/dist"
PACKAGE_IN_DOM0 = f"{PACKAGES_IN_DOM0}/pcipt_*.deb"


def readme_commands() -> list[str]:
    """Give what the README has a user type in dom0; its first command makes the package elsewhere."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Install in dom0\n")[2].partition("\n## ")[0]
    build, *typed = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    if build != "make deb":
        raise LabError(f"the README's section on installing begins with {build!r}; expected make deb")
    return typed


def install_on_disk(image: Image, package: Path, disk: Path) -> None:
    """Make dom0's disk anew with the package installed; its service starts with the next boot."""
    if os.geteuid() != 0:
        raise MissingToolError("installing pcipt on a dom0's disk needs root")
    first, *_ = readme_commands()
    with copied(image.root) as system:
        folder = system.root / "var/tmp"
        shutil.copy(package, folder)
        system.run("sh", "-c", first, cwd="/var/tmp")
        (folder / package.name).unlink()
        make_disk(system.root, disk, image.directory.parent / "build.log")


def install(dom0: Dom0) -> float:
    """Type what the README says and is not done yet, where the package lies; give the seconds it took."""
    started = time.monotonic()
    done, *rest = readme_commands()
    for command in rest if dom0.mode in BEFORE_BOOT else [done, *rest]:
        result = dom0.run(command, cwd=PACKAGES_IN_DOM0, timeout=INSTALL_SECONDS, check=False)
        if result.rc != 0:
            told = dom0.run("systemctl status pcipt; journalctl -u pcipt", check=False).stdout
            raise LabError(f"{command!r} ended with {result.rc}\n{result.stdout}{result.stderr}\n{told}")
    return time.monotonic() - started
