"""Read facts that Linux knows about functions: reset methods, IOMMU group, boot display.

Linux does not show `reset_method` for a function that it cannot reset. So a missing file means "no method"
only if another function of the machine has the file (Linux 5.15 and newer).
Source: linux drivers/pci/pci.c, pci_dev_reset_method_attr_is_visible.
"""

from collections.abc import Iterable

import attrs

from pcipt.host import files
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import read_file, read_link
from pcipt.pci import Sbdf
from pcipt.pci.raw import LinuxFacts


def read_facts(root: str, sbdfs: Iterable[Sbdf]) -> dict[Sbdf, LinuxFacts]:
    """Return the facts of each function. A function whose directory cannot be opened is left out.

    For example, the directory cannot be opened if Linux does not list the function (any more). Facts that
    cannot be read are None. `sbdfs` should contain all functions of the machine. Reason: if at least one
    function of `sbdfs` has reset methods, a function without a readable file `reset_method` has none (an
    empty tuple). Otherwise its methods are unknown (None).
    Raises: InputError if `sys/bus/pci/devices` is missing below `root`.
    """
    found: dict[Sbdf, LinuxFacts] = {}
    with SysfsReader(root) as reader:
        for sbdf in sbdfs:
            try:
                directory = reader.enter(sbdf)
            except OSError:
                continue
            found[sbdf] = LinuxFacts(
                _methods(directory), _group(directory, len(reader.names)), _boot_vga(directory)
            )
    if any(facts.reset_methods for facts in found.values()):
        return {
            sbdf: attrs.evolve(facts, reset_methods=facts.reset_methods or ())
            for sbdf, facts in found.items()
        }
    return found


def _text(directory: int, entry: files.Entry) -> str | None:
    """Return the text of a file without surrounding spaces, or None if it cannot be read."""
    try:
        return read_file(directory, entry.name, entry.limit).decode("ascii", "replace").strip()
    except OSError:
        return None


def _methods(directory: int) -> tuple[str, ...] | None:
    """Return the reset methods in the kernel's order, or None if the file is missing or cannot be read."""
    text = _text(directory, files.RESET_METHOD)
    return None if text is None else tuple(text.split())


def _group(directory: int, level: int) -> int | None:
    """Return the number of the IOMMU group, or None if there is none or it cannot be read.

    `level` is the number of directories between the root and `directory`.
    """
    try:
        name = read_link(directory, files.IOMMU_GROUP.name, level).rpartition("/")[2]
    except OSError:
        return None
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 else None


def _boot_vga(directory: int) -> bool | None:
    """Return True if the function was the display at boot, else False.

    Return None if the file is missing, malformed or cannot be read.
    """
    text = _text(directory, files.BOOT_VGA)
    return None if text not in ("0", "1") else text == "1"
