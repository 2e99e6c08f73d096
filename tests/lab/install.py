"""Install this checkout in dom0 the way its README tells a user."""

from __future__ import annotations

import time

from .machine import Dom0
from .payload import CHECKOUT_IN_DOM0

INSTALL_SECONDS = 900.0
START_SECONDS = 180.0


def install(dom0: Dom0) -> float:
    """Run `make install` and start the service; give the seconds it took."""
    started = time.monotonic()
    dom0.run("make install", cwd=CHECKOUT_IN_DOM0, timeout=INSTALL_SECONDS)
    dom0.run(
        "systemctl enable --now pcipt || { systemctl status pcipt; journalctl -u pcipt; exit 1; }",
        timeout=START_SECONDS,
    )
    return time.monotonic() - started
