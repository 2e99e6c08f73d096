"""Read facts that Linux knows about functions: reset methods, IOMMU group, boot display; IRQ, slot, label,
power state, link and counters of errors.

Linux does not show `reset_method` for a function that it cannot reset. So a missing file means "no method"
only if another function of the machine has the file (Linux 5.15 and newer).
Source: linux drivers/pci/pci.c, pci_dev_reset_method_attr_is_visible; Documentation/ABI/testing/
        sysfs-bus-pci, sysfs-bus-pci-devices-aer_stats; drivers/pci/slot.c (slots).
"""

import re
from collections.abc import Collection

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.files import Contents
from pcipt.host.function.contents import NOTHING, content_of, link_of
from pcipt.host.sysfs import SysfsReader, reader_of
from pcipt.host.tree import Tree, list_names, text_of
from pcipt.pci import Sbdf
from pcipt.pci.raw import LinuxFacts

# What few devices have: `re` compiles these texts when they are first used.
_SPEED = r"([0-9]{1,3})(?:\.([0-9]))? GT/s.*"
_COUNT = r"([A-Za-z_/ ]+) ([0-9]{1,20})"
_SLOT = r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])\s*"


@attrs.frozen
class LinkFacts:
    """Speed in MT/s and width of a link, now and the highest that the function can; None is unknown."""

    speed: int | None
    width: int | None
    max_speed: int | None
    max_width: int | None


@attrs.frozen
class DeviceFacts:
    """What Linux and the firmware say of one function; None is unknown or absent.

    `irq` is the number of the interrupt without MSI. `slot` is the name of the physical slot. `label` and
    `index` are the firmware's name and number of the device, as on the case of the machine: by ACPI if it has
    them (`by_acpi`), else by SMBIOS. `power_state` is Linux's belief. `errors` counts the errors that the
    function reported, by severity ("correctable", "nonfatal", "fatal") and by name; errors that did not occur
    are left out.
    """

    irq: int | None = None
    slot: str | None = None
    label: str | None = None
    index: int | None = None
    by_acpi: bool = False
    power_state: str | None = None
    link: LinkFacts | None = None
    errors: dict[str, dict[str, int]] | None = None


def read_device_facts(root: str, sbdf: Sbdf) -> DeviceFacts:
    """Return the facts of one function. Raises nothing: what cannot be read is None."""
    slot = _slot(root, sbdf)
    try:
        with SysfsReader(root) as reader:
            return _device_facts(reader.enter(sbdf), slot)
    except (OSError, InputError):
        return DeviceFacts(slot=slot)


def _device_facts(directory: int, slot: str | None) -> DeviceFacts:
    """Return the facts in the directory of a function, with the name of its slot."""
    acpi_index = _number(directory, files.ACPI_INDEX)
    index = acpi_index if acpi_index is not None else _number(directory, files.INDEX)
    speeds = [_speed(directory, entry) for entry in (files.LINK_SPEED, files.MAX_LINK_SPEED)]
    widths = [_number(directory, entry) for entry in (files.LINK_WIDTH, files.MAX_LINK_WIDTH)]
    link = LinkFacts(speeds[0], widths[0], speeds[1], widths[1]) if widths[1] else None
    kinds = {
        "correctable": files.AER_CORRECTABLE,
        "nonfatal": files.AER_NONFATAL,
        "fatal": files.AER_FATAL,
    }
    errors = {
        kind: found for kind, entry in kinds.items() if (found := _counts(directory, entry)) is not None
    }
    return DeviceFacts(
        irq=_number(directory, files.IRQ),
        slot=slot,
        label=_text(directory, files.LABEL) or None,
        index=index,
        by_acpi=acpi_index is not None,
        power_state=_text(directory, files.POWER_STATE) or None,
        link=link,
        errors=errors or None,
    )


def _number(directory: int, entry: files.Entry) -> int | None:
    """Return the decimal number in a file, or None."""
    text = _text(directory, entry) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def _speed(directory: int, entry: files.Entry) -> int | None:
    """Return a link speed in MT/s, or None; the file has for example "2.5 GT/s PCIe", or "Unknown"."""
    matched = re.fullmatch(_SPEED, _text(directory, entry) or "")
    return int(matched[1]) * 1000 + int(matched[2] or 0) * 100 if matched is not None else None


def _counts(directory: int, entry: files.Entry) -> dict[str, int] | None:
    """Return the counters of a file that are not 0, by name; None if the file cannot be read or has none.

    The last line, which has the total, is left out.
    """
    text = _text(directory, entry)
    if text is None:
        return None
    counts = {
        found[1]: int(found[2]) for line in text.splitlines() if (found := re.fullmatch(_COUNT, line.strip()))
    }
    if not counts:
        return None
    return {name: count for name, count in counts.items() if count and not name.startswith("TOTAL_")}


def _slot(root: str, sbdf: Sbdf) -> str | None:
    """Return the name of the physical slot of a function, or None. A slot has all functions of a device."""
    return read_slots(root).get(sbdf[:3])


def read_slots(root: str) -> dict[tuple[int, int, int], str]:
    """Return the names of the physical slots by (segment, bus, device); nothing if they cannot be read.

    Two slots with one address do not exist; the first name counts.
    """
    found: dict[tuple[int, int, int], str] = {}
    try:
        with Tree(root) as tree:
            for name in sorted(list_names(tree.enter(files.SLOTS), files.MAX_SLOTS)):
                try:
                    text = tree.read(
                        f"{files.SLOTS}/{name}/{files.SLOT_ADDRESS.name}", files.SLOT_ADDRESS.limit
                    )
                except OSError:
                    continue
                matched = re.fullmatch(_SLOT, text.decode("ascii", "replace"))
                if matched is not None:
                    segment, bus, device = (int(part, 16) for part in matched.groups())
                    found.setdefault((segment, bus, device), text_of(name))
    except (OSError, InputError):
        pass
    return found


def read_facts(root: str, sbdfs: Collection[Sbdf]) -> dict[Sbdf, LinuxFacts]:
    """Return the facts of each function. A function whose directory cannot be opened is left out.

    For example, the directory cannot be opened if Linux does not list the function (any more). Facts that
    cannot be read are None. `sbdfs` should contain all functions of the machine. Reason: if at least one
    function of `sbdfs` has reset methods, a function without a readable file `reset_method` has none (an
    empty tuple). Otherwise its methods are unknown (None).
    Raises: InputError if `sys/bus/pci/devices` is missing below `root`.
    """
    found: dict[Sbdf, LinuxFacts] = {}
    wanted = [(entry, None) for entry in (files.RESET_METHOD, files.IOMMU_GROUP, files.BOOT_VGA)]
    contents_of = reader_of(wanted, len(sbdfs))
    with SysfsReader(root) as reader:
        for sbdf in sbdfs:
            try:
                directory = reader.enter(sbdf)
            except OSError:
                continue
            contents = contents_of(directory)
            found[sbdf] = LinuxFacts(
                _methods(directory, contents),
                _group(directory, len(reader.names), contents),
                _boot_vga(directory, contents),
            )
    if any(facts.reset_methods for facts in found.values()):
        return {
            sbdf: attrs.evolve(facts, reset_methods=facts.reset_methods or ())
            for sbdf, facts in found.items()
        }
    return found


def _text(directory: int, entry: files.Entry, contents: Contents = NOTHING) -> str | None:
    """Return the text of a file without surrounding spaces, or None if it cannot be read.

    `contents` has what was read already: by name the content, None if the file is missing.
    """
    try:
        data = content_of(directory, entry, contents)
    except OSError:
        return None
    return data.decode("ascii", "replace").strip() if data is not None else None


def _methods(directory: int, contents: Contents) -> tuple[str, ...] | None:
    """Return the reset methods in the kernel's order, or None if the file is missing or cannot be read."""
    text = _text(directory, files.RESET_METHOD, contents)
    return None if text is None else tuple(text.split())


def _group(directory: int, level: int, contents: Contents) -> int | None:
    """Return the number of the IOMMU group, or None if there is none or it cannot be read.

    `level` is the number of directories between the root and `directory`.
    """
    try:
        target = link_of(directory, files.IOMMU_GROUP, level, contents) or ""
    except OSError:
        return None
    name = target.rpartition("/")[2]
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 else None


def _boot_vga(directory: int, contents: Contents) -> bool | None:
    """Return True if the function was the display at boot, else False.

    Return None if the file is missing, malformed or cannot be read.
    """
    text = _text(directory, files.BOOT_VGA, contents)
    return None if text not in ("0", "1") else text == "1"
