"""Install pcipt in dom0 the way the README tells a user: its Debian package, and nothing else."""

from __future__ import annotations

import time

from .errors import LabError
from .machine import Dom0
from .payload import CHECKOUT_IN_DOM0, REPOSITORY

INSTALL_SECONDS = 600.0
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


def install(dom0: Dom0) -> float:
    """Type what the README says, where the package lies; give the seconds it took."""
    started = time.monotonic()
    for command in readme_commands():
        done = dom0.run(command, cwd=PACKAGES_IN_DOM0, timeout=INSTALL_SECONDS, check=False)
        if done.rc != 0:
            told = dom0.run("systemctl status pcipt; journalctl -u pcipt", check=False).stdout
            raise LabError(f"{command!r} ended with {done.rc}\n{done.stdout}{done.stderr}\n{told}")
    return time.monotonic() - started
