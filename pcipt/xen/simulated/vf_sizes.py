"""Size the BARs of virtual functions as Xen does when it is told of a physical function.

Source: Xen xen/drivers/passthrough/pci.c (pci_add_device), 4.17 to 4.22.
"""

from pcipt.pci import Sbdf
from pcipt.pci.bars import IO_SPACE, VF_BAR_COUNT
from pcipt.pci.sriov import VF_ENABLE, VF_MEMORY_ENABLE
from pcipt.pci.structures import SRIOV
from pcipt.xen.releases import IO_VF_BAR_HANGS, Version
from pcipt.xen.simulated.model import Catastrophe
from pcipt.xen.simulated.vpci_state import ConfigHardware, Reader

_CONTROL, _VF_BARS = 0x08, 0x24


class VfSizes:
    """What Xen reads of physical functions of `hardware`."""

    def __init__(self, hardware: ConfigHardware, version: Version) -> None:
        self._hardware = hardware
        self._version = version

    def of(self, function: Sbdf, *, boot: bool = False) -> dict[int, int]:
        """Return the sizes in bytes of the memory VF BARs of one virtual function, by BAR number.

        Empty if the function has no SR-IOV, and while VF Enable or VF Memory Enable is set. With `boot` these
        bits do not matter: dom0's kernel clears them before it announces functions at boot.
        Raises: Catastrophe if a VF BAR is for I/O ports and this Xen never ends then.
        """
        reader = Reader(self._hardware, function)
        at = reader.extended_capability(SRIOV)
        if not at or (not boot and reader.read(at + _CONTROL, 2) & (VF_ENABLE | VF_MEMORY_ENABLE)):
            return {}
        found: dict[int, int] = {}
        number = 0
        while number < VF_BAR_COUNT:
            offset = at + _VF_BARS + 4 * number
            value = reader.read(offset, 4)
            if value & IO_SPACE:
                if IO_VF_BAR_HANGS.of(self._version):
                    raise Catastrophe(f"add of {function}, whose VF BAR {number} is for I/O: endless loop")
                number += 1
                continue
            size = reader.size(offset, last=number == VF_BAR_COUNT - 1)[1]
            if size:
                found[number] = size
            number += 2 if value & 0x6 == 0x4 else 1
        return found


def sizing_of(hardware: object, version: Version) -> VfSizes | None:
    """Return the sizing of VF BARs on this hardware; None if it has no registers."""
    return VfSizes(hardware, version) if isinstance(hardware, ConfigHardware) else None
