"""Model the calls that map and unmap pages of dom0, and what they break."""

from pcipt.pci import Frames
from pcipt.xen.mapping import UNTOUCHED, map_frames, unmap_frames
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.faults import Fault, failing_first_call
from pcipt.xen.simulated.model import DOM0, Catastrophe, DeviceList, Hardware, place_in
from pcipt.xen.simulated.p2m import P2m
from pcipt.xen.simulated.reserved import ReservedMemory
from pcipt.xen.simulated.vpci import Vpci


class MemoryCalls:
    """The calls on the memory of one dom0. `p2m` is None on a PV dom0, which makes none of them."""

    def __init__(
        self,
        hardware: Hardware,
        devices: DeviceList,
        reserved: ReservedMemory,
        p2m: P2m | None,
        vpci: Vpci | None,
    ) -> None:
        self._hardware = hardware
        self._list = devices
        self._reserved = reserved
        self._p2m = p2m
        self._vpci = vpci

    def perform(self, op: Op, frames: Frames, fault: Fault | None) -> int:
        """Map or unmap the frames as libxc and `pcipt.xen.mapping` do. Return 0 or -errno.

        Raises: Catastrophe if the call would kill dom0, take memory from it, or break a device.
        """
        p2m = self._p2m
        assert p2m is not None  # a PV dom0 was refused before
        if fault is not None and not fault.performed and not fault.pages and -fault.errno in UNTOUCHED:
            return -fault.errno
        if op is Op.UNMAP:
            self._require_unneeded(frames)
            return unmap_frames(failing_first_call(p2m.unmap, frames, fault), frames)
        holes = self._vpci.holes(frames) if self._vpci is not None else []
        if holes:
            raise Catastrophe(f"mapping {frames}: Xen traps the MSI-X tables of {holes[0]} no more")
        return map_frames(failing_first_call(p2m.map, frames, fault), p2m.unmap, frames)

    def _require_unneeded(self, frames: Frames) -> None:
        """Raise Catastrophe if one of these frames is reserved memory that a present device of dom0 needs.

        The DMA of that device would fault after the frames are unmapped. The device is the one at the place
        that had the address of the region's scope at boot.
        """
        homes = self._reserved.homes(frames)
        for function in self._hardware.functions() if homes else ():
            device = self._list.devices.get(function)
            here = self._hardware.presence(function) is not None
            place = place_in(self._hardware, function)
            if here and device is not None and device.owner == DOM0 and place in homes:
                raise Catastrophe(f"unmapping reserved memory at {frames}, which {function} needs")
