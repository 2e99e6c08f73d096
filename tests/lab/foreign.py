"""Another Debian's QEMU, run on this system: its own loader, libraries and firmware, nothing mounted."""

from __future__ import annotations

from .cell import Suite
from .chroot import ensure_system

PACKAGES = ("qemu-system-x86", "seabios")
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def emulator_of(suite: Suite) -> list[str]:
    """Give the words that start the QEMU of a release of Debian; the system is made first if it is not there.

    Raises: MissingToolError without root, LabError if the system cannot be made.
    """
    root = ensure_system(suite, PACKAGES)
    return [
        "env",
        f"QEMU_MODULE_DIR={root / LIBRARIES / 'qemu'}",
        str(root / "usr/lib64/ld-linux-x86-64.so.2"),
        *("--library-path", str(root / LIBRARIES)),
        str(root / "usr/bin/qemu-system-x86_64"),
        *("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")),
    ]
