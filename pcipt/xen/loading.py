"""Find out which Xen is running, and list the libraries that can talk to it.

Everything is read below the directory `root`, so that a test can use a directory instead of a machine. The
soname of libxenctrl changes with every Xen release, that of libxencall is always the same.
Source: Linux Documentation/ABI/stable/sysfs-hypervisor-xen.
"""

import glob
import os
import re

from pcipt.errors import MalformedError, UnsupportedError
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.releases import common_interfaces

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

    An HVM domain gives the kind PVH. If /proc/xen/capabilities is missing or empty, this domain is treated as
    the control domain.
    Raises: UnsupportedError if there is no Xen, if this domain is not the control domain, or if its kind is
            not PV, PVH or HVM; MalformedError if the file of the major or minor version is missing or does
            not hold a number.
    """
    if _text(root, "sys/hypervisor/type") != "xen":
        raise UnsupportedError("Xen", "this machine does not run under Xen (see /sys/hypervisor/type)")
    capabilities = _text(root, "proc/xen/capabilities")
    if capabilities and "control_d" not in capabilities.split():
        raise UnsupportedError("Xen", "this domain is not the control domain (/proc/xen/capabilities)")
    guest_type = _text(root, "sys/hypervisor/guest_type") or ""
    if guest_type not in _GUEST_TYPES:
        raise UnsupportedError("Xen", f"unknown kind of domain {guest_type!r} (/sys/hypervisor/guest_type)")
    major, minor = (_number(root, f"sys/hypervisor/version/{part}") for part in ("major", "minor"))
    extra = _text(root, "sys/hypervisor/version/extra") or ""
    return XenIdentity(f"{major}.{minor}{extra}", _GUEST_TYPES[guest_type])


def require_privcmd(root: str = "/") -> None:
    """Raise UnsupportedError if there is no device for hypercalls.

    The device is /dev/xen/privcmd or /proc/xen/privcmd below `root`; one of them is enough. Without this
    check libxencall itself would complain on stderr.
    """
    if not any(os.path.exists(os.path.join(root, path)) for path in _PRIVCMD):
        raise UnsupportedError("Xen", "/dev/xen/privcmd is missing (is the module xen-privcmd loaded?)")


def xencall_names(root: str = "/") -> list[str]:
    """Return the names to try for libxencall, in this order.

    First the soname, which the dynamic linker resolves (only if `root` is /), then the paths of the files in
    the usual library folders. The list is empty if `root` is not / and there are no files.
    """
    return [*_soname(root, XENCALL), *_installed(root, XENCALL)]


def xenctrl_names(identity: XenIdentity, root: str = "/") -> list[str]:
    """Return the names to try for libxenctrl, in this order.

    First the names for the running Xen's release: the soname (only if `root` is /) and the paths of the
    files. Then the paths of files of other releases: those that have both sysctl and domctl in common with
    the running Xen (`common_interfaces`), those with one of them, those about which that is not known; the
    newest first in each group. A library that has neither in common is left out, because Xen would refuse
    each of its calls.
    """
    exact = f"libxenctrl.so.{identity.version.branch}"
    own = _installed(root, exact)
    others = [
        path
        for path in _installed(root, "libxenctrl.so.[0-9]*")
        if path not in own and _VERSIONED.fullmatch(os.path.basename(path))
    ]
    ranks = {path: _usable(identity, path) for path in others}
    usable = [path for path in others if ranks[path]]
    ordered = sorted(usable, key=lambda path: (ranks[path], _release(path)), reverse=True)
    return [*_soname(root, exact), *own, *ordered]


def _usable(identity: XenIdentity, path: str) -> float:
    """Return how well a libxenctrl serves the running Xen: interfaces in common, 0 to 2; 0.5 if not known."""
    common = common_interfaces(identity.version.branch, "{}.{}".format(*_release(path)))
    return 0.5 if common is None else common


def _soname(root: str, name: str) -> list[str]:
    """Return a list with the soname `name`, or an empty list if `root` is not /.

    Reason: the dynamic linker, which finds a library by its soname, looks only below /.
    """
    return [name] if os.path.realpath(root) == "/" else []


def _release(path: str) -> tuple[int, int]:
    """Return the (major, minor) release in a file name of libxenctrl; (0, 0) if the name has no release."""
    match = _VERSIONED.fullmatch(os.path.basename(path))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _installed(root: str, name: str) -> list[str]:
    """Return the paths of the files with this name (a glob pattern) in the usual library folders.

    The paths are in the order of DIRECTORIES, and sorted by name in each.
    """
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
    """Return the number in a file below `root`.

    Raises: MalformedError if the file cannot be read or does not hold a decimal number of at most 5 digits.
    """
    text = _text(root, path)
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text):
        raise MalformedError(f"/{path}", 0, f"{text!r} is not a number")
    return int(text)
