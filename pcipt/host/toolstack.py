"""Hands functions over by the toolstack's command: xl unbinds, quarantines, keeps its notes in xenstore.

No bookkeeping stands beside that one. What a failed step leaves behind is looked for in sysfs.
Source: xl(1), pci-assignable-add and -remove; tools/libs/light/libxl_pci.c.
"""

import os
import shutil
import subprocess

from pcipt.errors import InputError, UnsupportedError
from pcipt.host.files import DEVICES
from pcipt.host.function_files import sbdf_from_name
from pcipt.host.tree import reason
from pcipt.pci import Sbdf

PCIBACK = "pciback"
MODULE = "xen-pciback"
DRIVERS = "sys/bus/pci/drivers"
PROBE = "sys/bus/pci/drivers_probe"
PATIENCE = 120.0  # seconds; a function may need a long reset
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where it is although PATH may not say so


class Toolstack:
    """What is done is done to the running machine; `root` is where its sysfs is."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def require(self) -> None:
        """See to it that there is a toolstack.

        Raises: UnsupportedError.
        """
        _find("xl")

    @property
    def has_pciback(self) -> bool:
        return os.path.isdir(os.path.join(self._root, DRIVERS, PCIBACK))

    def load_pciback(self) -> None:
        _run("modprobe", MODULE)
        if not self.has_pciback:
            raise InputError(f"modprobe {MODULE}", f"{DRIVERS}/{PCIBACK} did not appear")

    def unload_pciback(self) -> None:
        """Undo `load_pciback`; whoever has come to need it meanwhile keeps it: unloading would unbind all."""
        try:
            names = os.listdir(os.path.join(self._root, DRIVERS, PCIBACK))
        except OSError:
            return  # it did not load
        if all(sbdf_from_name(name) is None for name in names):
            _run("modprobe", "-r", MODULE)

    def driver(self, sbdf: Sbdf) -> str | None:
        """Tell which driver a function is bound to."""
        try:
            return os.path.basename(os.readlink(os.path.join(self._root, DEVICES, str(sbdf), "driver")))
        except OSError:
            return None

    def give(self, sbdf: Sbdf) -> None:
        """Take a function from its driver, give it to xen-pciback and quarantine it.

        Raises: InputError with xl's own words.
        """
        _run("xl", "pci-assignable-add", str(sbdf))
        if self.driver(sbdf) != PCIBACK:
            raise InputError(f"xl pci-assignable-add {sbdf}", f"it is not bound to {PCIBACK} after that")

    def take_back(self, sbdf: Sbdf, driver: str | None = None, *, rebind: bool = True) -> None:
        """Take a function out of quarantine and give it to the driver that it had.

        `driver` is tried where xl did not note one. Without `rebind` no driver gets it: what xl noted may be
        of an earlier time.
        Raises: InputError, as `give`.
        """
        _run("xl", "pci-assignable-remove", *(["-r"] if rebind else []), str(sbdf))
        if self.driver(sbdf) == PCIBACK:
            raise InputError(f"xl pci-assignable-remove {sbdf}", f"it is still bound to {PCIBACK}")
        if driver is not None and self.driver(sbdf) is None:
            self.bind(sbdf, driver)

    def bind(self, sbdf: Sbdf, driver: str) -> None:
        """Bind a function to a driver.

        Raises: InputError.
        """
        self._tell(sbdf, driver, "bind")

    def unbind(self, sbdf: Sbdf) -> None:
        """Take a function from its driver, if it has one.

        Raises: InputError.
        """
        driver = self.driver(sbdf)
        if driver is not None:
            self._tell(sbdf, driver, "unbind")

    def hide(self, sbdf: Sbdf) -> None:
        """Give a function that no driver has to xen-pciback, and leave it dom0's, as `hide=` does at boot.

        Raises: InputError.
        """
        self._tell(sbdf, PCIBACK, "new_slot")
        self._tell(sbdf, PCIBACK, "bind")

    def let_go(self, sbdf: Sbdf, driver: str | None) -> None:
        """Take a function that is not quarantined from xen-pciback, and bind it to the driver that it had.

        Raises: InputError.
        """
        self._tell(sbdf, PCIBACK, "unbind")
        self._tell(sbdf, PCIBACK, "remove_slot")
        if driver is not None:
            self.bind(sbdf, driver)

    def probe(self, sbdf: Sbdf) -> None:
        """Have Linux look for a driver for a function.

        Raises: InputError.
        """
        self._write(sbdf, os.path.join(self._root, PROBE))

    def _tell(self, sbdf: Sbdf, driver: str, what: str) -> None:
        self._write(sbdf, os.path.join(self._root, DRIVERS, driver, what))

    def _write(self, sbdf: Sbdf, path: str) -> None:
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(sbdf))
        except OSError as error:
            raise InputError(path, reason(error)) from error


def _find(command: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DIRECTORIES))
    found = shutil.which(command, path=path)
    if found is None:
        raise UnsupportedError(command, "it is not installed; Debian has xl in xen-utils, modprobe in kmod")
    return found


def _run(command: str, *arguments: str) -> None:
    """Run a command to its end, also if somebody interrupts us: half a hand-over helps nobody."""
    words = " ".join((command, *arguments))
    try:
        done = subprocess.run(
            [_find(command), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
            start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(words, f"did not end within {PATIENCE:.0f} seconds") from error
    except OSError as error:
        raise InputError(words, reason(error)) from error
    if done.returncode:
        said = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        raise InputError(words, said[-1] if said else f"it failed with {done.returncode}")
