"""Read what Linux tells of functions beside their registers: reset methods, IOMMU group, boot display.

Linux hides `reset_method` where there is none to use: its absence means "none" only on a machine where some
other function has it (Linux 5.15 and newer).
Source: linux drivers/pci/pci.c, pci_dev_reset_method_attr_is_visible.
"""

from collections.abc import Iterable

import attrs

from pcipt.host import files
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import read_file, read_link
from pcipt.pci import Sbdf
from pcipt.pci.linux_facts import LinuxFacts


def read_facts(root: str, sbdfs: Iterable[Sbdf]) -> dict[Sbdf, LinuxFacts]:
    """Read them for all of a machine's functions; one that vanishes meanwhile has none.

    Raises: InputError where `sys/bus/pci/devices` is not there.
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
    try:
        return read_file(directory, entry.name, entry.limit).decode("ascii", "replace").strip()
    except OSError:
        return None


def _methods(directory: int) -> tuple[str, ...] | None:
    text = _text(directory, files.RESET_METHOD)
    return None if text is None else tuple(text.split())


def _group(directory: int, level: int) -> int | None:
    try:
        name = read_link(directory, files.IOMMU_GROUP.name, level).rpartition("/")[2]
    except OSError:
        return None
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 else None


def _boot_vga(directory: int) -> bool | None:
    text = _text(directory, files.BOOT_VGA)
    return None if text not in ("0", "1") else text == "1"
