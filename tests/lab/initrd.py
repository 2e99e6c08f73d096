"""The smallest initial RAM disk that finds dom0's root: busybox, the modules of the disk, one script.

Debian's own starts udev twice over; without KVM that is a third of a PVH dom0's boot.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from .errors import LabError
from .recipe import INIT, INITRD_MODULES


def list_modules(root: Path, release: str) -> list[Path]:
    """Ask the image's own modprobe which module files the disk needs, in the order of loading."""
    files: dict[Path, None] = {}
    for module in INITRD_MODULES:
        command = ["chroot", str(root), "modprobe", "--set-version", release, "--show-depends", module]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"the image's modprobe does not know {module}: {done.stderr.strip()}")
        for line in done.stdout.splitlines():
            kind, _, name = line.partition(" ")
            if kind == "insmod":
                files[root / name.split()[0].lstrip("/")] = None
    return list(files)


def cpio_entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    """Render one file in cpio's "newc" form, the kernel's (Documentation: early-userspace/buffer-format)."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def make_initrd(root: Path, release: str) -> bytes:
    """Build the RAM disk from an unpacked image; uncompressed, for unpacking costs more than reading here."""
    files: list[tuple[str, int, bytes]] = [
        (folder, 0o040755, b"") for folder in ("bin", "dev", "proc", "sys", "root", "lib")
    ]
    files.append(("bin/busybox", 0o100755, (root / "bin/busybox").read_bytes()))
    files.append(("init", 0o100755, INIT.encode()))
    modules = list_modules(root, release)
    files += [(f"lib/{path.name}", 0o100644, path.read_bytes()) for path in modules]
    files.append(("modules", 0o100644, "".join(f"/lib/{path.name}\n" for path in modules).encode()))
    files.append(("TRAILER!!!", 0, b""))
    return b"".join(
        cpio_entry(name, mode, data, number) for number, (name, mode, data) in enumerate(files, 1)
    )
