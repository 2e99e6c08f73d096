"""Read the names of host bridges, and with them the identities of all functions of a machine.

Source: linux drivers/acpi/device_sysfs.c (`path` of an ACPI object), drivers/acpi/glue.c (`firmware_node`).
"""

import re
from collections import Counter

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.files import Entry
from pcipt.host.function.facts import read_slots
from pcipt.host.tree import Tree, list_names
from pcipt.pci import ConfigSpace, Machine, RawFunction, Sbdf
from pcipt.pci.identity import ACPI_NAME, Identity, identities_of

_HOST_BRIDGE = re.compile(r"pci([0-9a-f]{4,8}):([0-9a-f]{2})")


def host_bridge_files(tree: Tree) -> list[Entry]:
    """Return the file with the ACPI name of each host bridge, by its path below the root; it may be missing.

    A host bridge that a device makes (VMD) is not in this list: it has no ACPI name.
    """
    try:
        names = list_names(tree.enter(files.HOST_BRIDGES), files.MAX_DEVICES)
    except OSError:
        return []
    entry = files.HOST_BRIDGE_NAME
    return [
        attrs.evolve(entry, name=f"{files.HOST_BRIDGES}/{name}/{entry.name}")
        for name in sorted(names)
        if _HOST_BRIDGE.fullmatch(name)
    ]


def read_host_bridges(root: str) -> dict[tuple[int, int], str]:
    r"""Return the ACPI name of each host bridge by (segment, root bus), for example \_SB_.PCI0.

    A host bridge without a readable name is left out, and so are those of which several have one name. Raises
    nothing.
    """
    found: dict[tuple[int, int], str] = {}
    try:
        with Tree(root) as tree:
            for entry in host_bridge_files(tree):
                try:
                    name = tree.read(entry.name, entry.limit).decode("ascii", "replace").strip()
                except OSError:
                    continue
                numbers = _HOST_BRIDGE.fullmatch(entry.name.split("/")[2])
                if numbers is not None and ACPI_NAME.fullmatch(name):
                    found[int(numbers[1], 16), int(numbers[2], 16)] = name
    except InputError:
        pass
    several = Counter(found.values())
    return {place: name for place, name in found.items() if several[name] == 1}


def read_identities(root: str, machine: Machine, raws: list[RawFunction]) -> dict[Sbdf, Identity]:
    """Return the identity of each function of `machine`, which was decoded from `raws` and read below `root`.

    Serial numbers are known only where more than 256 bytes of configuration space could be read, which needs
    root on the running machine.
    """
    configs = {raw.sbdf: ConfigSpace(raw.config or b"") for raw in raws}
    return identities_of(machine, configs, read_host_bridges(root), read_slots(root))
