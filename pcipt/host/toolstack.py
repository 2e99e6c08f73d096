"""Move functions between dom0's drivers and xen-pciback with the command xl, and bind and unbind drivers.

xl binds a function to xen-pciback, quarantines it, and stores its previous driver in xenstore. pcipt itself
stores none of this. After a failed step, pcipt reads the state from sysfs.
Source: xl(1), pci-assignable-add and -remove; tools/libs/light/libxl_pci.c.
"""

import os

from pcipt.errors import InputError, UnsupportedError
from pcipt.hints import TYPE_CHECKING
from pcipt.host.files import DEVICES
from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.host.tree import reason
from pcipt.pci import Sbdf

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

PCIBACK = "pciback"
MODULE = "xen-pciback"
DRIVERS = "sys/bus/pci/drivers"
PROBE = "sys/bus/pci/drivers_probe"
OVERRIDE = "driver_override"  # of a function
AUTOPROBE = "sys/bus/pci/drivers_autoprobe"
_SUPPLIER, _USB4 = "supplier:pci:", "0x0c0340"
PATIENCE = 120.0  # seconds; the reset of a function can take long
QUESTION = 5.0
_PACKAGES = {"xl": "the package that has xl (Debian: xen-utils)", "modprobe": "kmod"}
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # searched even if they are not in PATH


class Toolstack:
    """Commands and sysfs writes that change the running machine.

    `root` is the directory below which sysfs is mounted at `sys`.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._probes: list[subprocess.Popen[bytes]] = []
        self._gives: dict[Sbdf, subprocess.Popen[bytes]] = {}

    def require(self) -> None:
        """Raise UnsupportedError if xl is not installed."""
        _find("xl")

    @property
    def has_pciback(self) -> bool:
        """Return True if the driver xen-pciback is loaded."""
        return os.path.isdir(os.path.join(self._root, DRIVERS, PCIBACK))

    def load_pciback(self) -> None:
        """Load the module xen-pciback and wait until modprobe ends.

        If it is loaded already, nothing changes.
        Raises: InputError if it cannot be loaded; UnsupportedError if modprobe is not installed.
        """
        _run("modprobe", MODULE)
        if not self.has_pciback:
            raise InputError(f"modprobe {MODULE}", f"{DRIVERS}/{PCIBACK} did not appear")

    def unload_pciback(self) -> None:
        """Unload the module xen-pciback. Do nothing if the module is not loaded, or if a function is bound to
        it.

        Reason: unloading the module would unbind this function.
        Raises: InputError if the module cannot be unloaded; UnsupportedError if modprobe is not installed.
        """
        try:
            names = os.listdir(os.path.join(self._root, DRIVERS, PCIBACK))
        except OSError:
            return  # the module is not loaded
        if all(sbdf_from_name(name) is None for name in names):
            _run("modprobe", "-r", MODULE)

    def driver(self, sbdf: Sbdf) -> str | None:
        """Return the name of the driver to which a function is bound.

        Return None if it has no driver or does not exist. Raises nothing.
        """
        try:
            return os.path.basename(os.readlink(os.path.join(self._root, DEVICES, str(sbdf), "driver")))
        except OSError:
            return None

    def give(self, sbdf: Sbdf) -> None:
        """Unbind a function from its driver, bind it to xen-pciback and quarantine it.

        This runs xl pci-assignable-add.
        Raises: InputError with the message of xl if xl fails; InputError if the function is not bound to
                xen-pciback after that; UnsupportedError if xl is not installed.
        """
        _run("xl", "pci-assignable-add", str(sbdf))
        if self.driver(sbdf) != PCIBACK:
            raise InputError(
                f"xl pci-assignable-add {sbdf}",
                (f"the function is not bound to {PCIBACK} after this command"),
            )

    def take_back(self, sbdf: Sbdf, driver: str | None = None, *, rebind: bool = True) -> None:
        """Take a function out of quarantine and unbind it from xen-pciback.

        This runs xl pci-assignable-remove. If `rebind` is True, xl then binds the function to its previous
        driver, which xl stored. Use False if the stored driver may be out of date. If the function has no
        driver when xl has ended, it is bound to `driver`. If `driver` is None, it stays without a driver.
        Raises: InputError with the message of xl if xl fails; InputError if the function is still bound to
                xen-pciback, or if it cannot be bound to `driver`; UnsupportedError if xl is not installed.
        """
        _run("xl", "pci-assignable-remove", *(["-r"] if rebind else []), str(sbdf))
        if self.driver(sbdf) == PCIBACK:
            raise InputError(
                f"xl pci-assignable-remove {sbdf}",
                (f"the function is still bound to {PCIBACK} after this command"),
            )
        if driver is not None and self.driver(sbdf) is None:
            self.bind(sbdf, driver)

    def bind(self, sbdf: Sbdf, driver: str) -> None:
        """Bind a function to a driver. Raises: InputError if the driver is not loaded or Linux refuses."""
        self._write_driver_file(sbdf, driver, "bind")

    def unbind(self, sbdf: Sbdf) -> None:
        """Unbind a function from its driver.

        Do nothing if it has none. Raises: InputError if Linux refuses.
        """
        driver = self.driver(sbdf)
        if driver is not None:
            self._write_driver_file(sbdf, driver, "unbind")

    def hide(self, sbdf: Sbdf) -> None:
        """Bind a function to xen-pciback, but do not quarantine it. The function must have no driver.

        xen-pciback.hide= does the same at boot.
        Raises: InputError if xen-pciback is not loaded or Linux refuses.
        """
        self._write_driver_file(sbdf, PCIBACK, "new_slot")
        self._write_driver_file(sbdf, PCIBACK, "bind")

    def let_go(self, sbdf: Sbdf, driver: str | None) -> None:
        """Unbind a function from xen-pciback without xl, then bind it to `driver`.

        This is for a function that is not quarantined: xl refuses to take it back. If `driver` is None, it
        stays without a driver.
        Raises: InputError if Linux refuses a step; the steps before it are not undone.
        """
        self._write_driver_file(sbdf, PCIBACK, "unbind")
        self._write_driver_file(sbdf, PCIBACK, "remove_slot")
        if driver is not None:
            self.bind(sbdf, driver)

    def is_overridden(self, sbdf: Sbdf) -> bool:
        """Return True if xen-pciback alone may have a function: its driver_override names it. Raises nothing.

        The hook in the initramfs has written it (initramfs/keep.sh). pciback takes the function again then.
        """
        try:
            with open(os.path.join(self._root, DEVICES, str(sbdf), OVERRIDE), encoding="ascii") as file:
                return file.read(32).strip() == PCIBACK
        except (OSError, ValueError):
            return False

    def override(self, sbdf: Sbdf, *, on: bool) -> None:
        """Let xen-pciback alone have a function from now on, or any driver.

        Source: linux drivers/base/driver.c (driver_set_override: an empty line ends it).
        Raises: InputError if Linux refuses.
        """
        path = os.path.join(self._root, DEVICES, str(sbdf), OVERRIDE)
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{PCIBACK}\n" if on else "\n")
        except OSError as error:
            raise InputError(path, reason(error)) from error

    def guarded_ports(self) -> frozenset[Sbdf] | None:
        """Return the list of slots of xen-pciback; None if it is not loaded.

        xen-pciback takes each function that is in the list or below a bridge in the list, if no driver that
        was registered before it has taken it. The kernel cuts the list at one page.
        Source: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_match_one, slots).
        Raises: InputError if the list cannot be read.
        """
        path = os.path.join(self._root, DRIVERS, PCIBACK, "slots")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                names = file.read().split()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(path, reason(error)) from error
        return frozenset(sbdf for name in names if (sbdf := sbdf_from_name(name)) is not None)

    def is_usb4_port(self, sbdf: Sbdf) -> bool:
        """Return True if Linux has linked a port with a USB4 host interface (class 0c0340). Raises nothing.

        Source: linux drivers/thunderbolt/acpi.c (tb_acpi_add_link), drivers/base/core.c
                (devlink_add_symlinks); PCI Code and ID Assignment 1.16.
        """
        place = os.path.join(self._root, DEVICES, str(sbdf))
        try:
            names = [name.removeprefix(_SUPPLIER) for name in os.listdir(place) if name.startswith(_SUPPLIER)]
            for name in names:
                if sbdf_from_name(name) is not None:
                    with open(os.path.join(self._root, DEVICES, name, "class"), encoding="ascii") as file:
                        if file.read(16).strip() == _USB4:
                            return True
        except (OSError, ValueError):
            pass
        return False

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        """Put an address into the list of slots of xen-pciback, or take it out. Raises: InputError."""
        self._write_driver_file(sbdf, PCIBACK, "new_slot" if on else "remove_slot")

    def probe_past(self, sbdf: Sbdf, ports: "Iterable[Sbdf]") -> None:
        """Ask Linux to find a driver for a function that xen-pciback would take because of these ports.

        They are not in its list meanwhile: what appears below them in these milliseconds is not taken.
        Raises: InputError if Linux refuses; the ports are in the list again.
        """
        taken_out: list[Sbdf] = []
        try:
            for port in ports:
                self.guard_port(port, on=False)
                taken_out.append(port)
            self.probe(sbdf)
        finally:
            for port in taken_out:
                self.guard_port(port, on=True)

    def start_give(self, sbdf: Sbdf) -> None:
        """Start a process that does what `give` does. Do not wait for its end: a reset can be slow.

        Raises: InputError if xl has not ended since the last call for this function, if it has failed (then
                with its message; the next call starts it again), or if it cannot be started;
                UnsupportedError if it is not installed.
        """
        import subprocess

        words, before = f"xl pci-assignable-add {sbdf}", self._gives.get(sbdf)
        if before is not None and before.poll() is None:
            raise InputError(words, "the command has not ended yet")
        for other in [other for other, process in self._gives.items() if process.poll() == 0]:
            self._gives.pop(other).communicate()  # what those that failed said is told for them
        if before is not None and before.returncode:
            said = self._gives.pop(sbdf).communicate()[0].decode(errors="replace").strip()
            last = said.splitlines()[-1].strip() if said else f"it failed with {before.returncode}"
            raise InputError(words, last)
        try:
            self._gives[sbdf] = subprocess.Popen(
                [_find("xl"), "pci-assignable-add", str(sbdf)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise InputError(words, reason(error)) from error

    def probe(self, sbdf: Sbdf) -> None:
        """Ask Linux to find a driver for a function and to bind the function to it. Raises: InputError if
        Linux refuses.

        If no driver fits, the function stays without one and nothing is raised.
        """
        self._write(sbdf, os.path.join(self._root, PROBE))

    def start_probe(self, sbdf: Sbdf) -> None:
        """Start a process that does what `probe` does. Do not wait for its end: a probe may take a minute.

        Nothing is done if Linux was told not to bind drivers by itself (`drivers_autoprobe`). If a driver is
        bound, the kernel sends a message.
        Raises: InputError if Linux has no such file or the process cannot be started.
        """
        import subprocess

        self._probes = [each for each in self._probes if each.poll() is None]
        path = os.path.join(self._root, PROBE)
        try:
            with open(os.path.join(self._root, AUTOPROBE), encoding="ascii") as file:
                if file.read(1) == "0":
                    return
            os.stat(path)
            command = ["/bin/sh", "-c", 'printf %s "$1" > "$2"', "sh", str(sbdf), path]
            self._probes.append(subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            ))  # fmt: skip
        except OSError as error:
            raise InputError(path, reason(error)) from error

    def _write_driver_file(self, sbdf: Sbdf, driver: str, what: str) -> None:
        """Write the address of the function to the file `what` of a driver.

        Raises: InputError if that fails.
        """
        self._write(sbdf, os.path.join(self._root, DRIVERS, driver, what))

    def _write(self, sbdf: Sbdf, path: str) -> None:
        """Write the address of the function to the file `path`. Raises: InputError if that fails."""
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(sbdf))
        except OSError as error:
            raise InputError(path, reason(error)) from error


def _find(command: str) -> str:
    """Return the path of a command, from PATH and from _DIRECTORIES.

    Raises: UnsupportedError if it is not installed.
    """
    import shutil

    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DIRECTORIES))
    found = shutil.which(command, path=path)
    if found is None:
        raise UnsupportedError(command, f"it is not installed; install {_PACKAGES[command]}")
    return found


def read_xl_info() -> dict[str, str]:
    """Return what `xl info` tells of the running Xen, by name: xen_commandline, virt_caps and others.

    Return nothing if it fails. Neither sysfs nor /proc has these; xl asks Xen (xc_version, xc_physinfo).
    """
    try:
        return parse_info(_run("xl", "info", patience=QUESTION))
    except (InputError, UnsupportedError):
        return {}


def parse_info(told: str) -> dict[str, str]:
    """Return the values in the output of `xl info`, by name."""
    lines = (line.partition(":") for line in told.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def read_console() -> str:
    """Return what Xen's console ring holds, as `xl dmesg` shows it; an empty text if that fails."""
    try:
        return _run("xl", "dmesg", patience=QUESTION)
    except (InputError, UnsupportedError):
        return ""


def _run(command: str, *arguments: str, patience: float = PATIENCE) -> str:
    """Run a command, wait until it ends, and return what it said.

    The command runs in its own session, so that Ctrl-C at the terminal does not reach it. The caller must
    defer the signals to pcipt, because a signal that interrupts the waiting kills the command.
    Raises: InputError with the last line of its output if it fails; InputError if it cannot be started or
            takes more than `patience` seconds; UnsupportedError if it is not installed.
    """
    import subprocess

    words = " ".join((command, *arguments))
    try:
        done = subprocess.run(
            [_find(command), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patience,
            start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(words, f"did not end within {patience:.0f} seconds") from error
    except OSError as error:
        raise InputError(words, reason(error)) from error
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        said = [line.strip() for line in text.splitlines() if line.strip()]
        raise InputError(words, said[-1] if said else f"it failed with {done.returncode}")
    return text
