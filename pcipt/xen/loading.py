"""Find out which Xen is running, and list the libraries that can talk to it.

Everything is read below the directory `root`, so that a test can use a directory instead of a machine. The
soname of libxenctrl changes with every Xen release, that of libxencall never did.
Source: Linux Documentation/ABI/stable/sysfs-hypervisor-xen.
"""

import glob
import os
import re

from pcipt.errors import MalformedError, UnsupportedError
from pcipt.xen.interface import Dom0Kind, XenIdentity

XENCALL = "libxencall.so.1"
DIRECTORIES = (
    "usr/lib/*-linux-gnu",
    "lib/*-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/lib",
    "lib",
    "usr/local/lib64",
    "usr/local/lib",
    "usr/local/lib/*-linux-gnu",
    "usr/lib/xen-*/lib",
)
_PRIVCMD = ("dev/xen/privcmd", "proc/xen/privcmd")
_GUEST_TYPES = {"PV": Dom0Kind.PV, "PVH": Dom0Kind.PVH, "HVM": Dom0Kind.PVH}
_VERSIONED = re.compile(r"libxenctrl\.so\.(\d+)\.(\d+)")


def read_identity(root: str = "/") -> XenIdentity:
    """Return the version of Xen and the kind of dom0 that this process runs in.

    Raises: UnsupportedError if there is no Xen, or this domain is not the control domain.
    """
    if _text(root, "sys/hypervisor/type") != "xen":
        raise UnsupportedError("Xen", "this machine does not run under Xen (/sys/hypervisor/type)")
    capabilities = _text(root, "proc/xen/capabilities")
    if capabilities and "control_d" not in capabilities.split():
        raise UnsupportedError("Xen", "this domain is not the control domain (/proc/xen/capabilities)")
    guest_type = _text(root, "sys/hypervisor/guest_type") or ""
    if guest_type not in _GUEST_TYPES:
        raise UnsupportedError("Xen", f"unknown kind of domain {guest_type!r} (/sys/hypervisor/guest_type)")
    major, minor = (_number(root, f"sys/hypervisor/version/{part}") for part in ("major", "minor"))
    extra = _text(root, "sys/hypervisor/version/extra") or ""
    return XenIdentity(major, minor, f"{major}.{minor}{extra}", _GUEST_TYPES[guest_type])


def require_privcmd(root: str = "/") -> None:
    """Raise UnsupportedError if the device for hypercalls (/dev/xen/privcmd) is missing.

    Without this check libxencall itself would complain on stderr.
    """
    if not any(os.path.exists(os.path.join(root, path)) for path in _PRIVCMD):
        raise UnsupportedError("Xen", "/dev/xen/privcmd is missing (is the module xen-privcmd loaded?)")


def xencall_names(root: str = "/") -> list[str]:
    """Return the names to try for libxencall.

    These are the soname, which the dynamic linker resolves, and then the files in the usual library folders.
    """
    return [*_soname(root, XENCALL), *_installed(root, XENCALL)]


def xenctrl_names(identity: XenIdentity, root: str = "/") -> list[str]:
    """Return the names to try for libxenctrl.

    Those of the running Xen's release come first, then other releases, newest first.

    A library of another release may work: sysctl kept its version from 4.17 to 4.20, domctl did not.
    """
    exact = f"libxenctrl.so.{identity.major}.{identity.minor}"
    own = _installed(root, exact)
    others = [
        path
        for path in _installed(root, "libxenctrl.so.[0-9]*")
        if path not in own and _VERSIONED.fullmatch(os.path.basename(path))
    ]
    return [*_soname(root, exact), *own, *sorted(others, key=_release, reverse=True)]


def _soname(root: str, name: str) -> list[str]:
    """Return the soname; an empty list if `root` is not /.

    The dynamic linker knows only the libraries of this machine.
    """
    return [name] if os.path.realpath(root) == "/" else []


def _release(path: str) -> tuple[int, int]:
    """Return the (major, minor) release in a file name of libxenctrl."""
    match = _VERSIONED.fullmatch(os.path.basename(path))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _installed(root: str, name: str) -> list[str]:
    """Return the files with this name (a glob pattern) in the usual library folders."""
    return [
        path
        for directory in DIRECTORIES
        for path in sorted(glob.glob(os.path.join(glob.escape(root), directory, name)))
    ]


def _text(root: str, path: str) -> str | None:
    """Return the first 4096 characters of a file below `root`; None if the file cannot be read.

    Surrounding white space is removed, and bytes that are not UTF-8 are replaced.
    """
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return None


def _number(root: str, path: str) -> int:
    """Return the number in a file below `root`. Raises MalformedError if there is none."""
    text = _text(root, path)
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text):
        raise MalformedError(f"/{path}", 0, f"{text!r} is not a number")
    return int(text)
