"""Functions behind conventional bridges, which share one entry of the IOMMU. Pure.

DMA of a conventional PCI function has the address of the bridge above the function. So Xen's VT-d code has,
beside the entry of the function, an entry for the uppermost conventional bridge, and one for function 0 of
the bus below a bridge from PCI Express to PCI. These entries are shared: Xen removes them when it removes one
of the functions, even if other functions need them, and makes them again only when it adds a function that it
does not list. On AMD the functions share an entry by the aliases of IVRS. Xen finds the bridge by the bus
numbers that the bridge had when Xen was told of the bridge.
Source: Xen drivers/passthrough/vtd/iommu.c (domain_context_mapping, domain_context_unmap), pci.c (alloc_pdev,
        free_pdev, find_upstream_bridge), amd/pci_amd_iommu.c (amd_iommu_disable_domain_device).
"""

from collections.abc import Callable, Collection, Iterable, Iterator

import attrs

from pcipt.pci import Finding, Function, Machine, Sbdf
from pcipt.pci.requester import PCIE_TO_PCI, Role, Vendor, role_of, vendor_of
from pcipt.remap.view import XenView


@attrs.frozen
class Bridges:
    """What is known of conventional bridges, by Linux's address.

    `all` returns the bridges that were conventional at their last successful reading. `announced` returns the
    secondary and subordinate bus that a bridge had when Xen was told of the bridge; None if unknown.
    """

    all: Callable[[], Collection[Sbdf]] = tuple
    announced: Callable[[Sbdf], tuple[int, int] | None] = lambda _bridge: None

    def is_conventional(self, bridge: Sbdf) -> bool:
        """Return True if the bridge at an address was conventional at its last successful reading."""
        return bridge in self.all()

    def above_or_at(self, machine: Machine, linux: Sbdf) -> bool:
        """Return True if a function is a conventional bridge, or is behind one."""
        return self.is_conventional(linux) or self.top(machine, linux) is not None

    def top(self, machine: Machine, linux: Sbdf) -> Function | None:
        """Return the uppermost conventional bridge above a conventional function; None if there is none.

        None is returned for a function that is not conventional (`is_endpoint`). A function that cannot be
        read now counts as conventional.
        """
        function = machine.functions.get(linux)
        if function is None or not is_endpoint(function):
            return None
        conventional = self.all()
        found = None
        for bridge in machine.above(function):
            if bridge.sbdf in conventional:
                found = bridge
        return found

    def above_bus(self, machine: Machine, sbdf: Sbdf) -> Function | None:
        """Return the uppermost conventional bridge that leads to the bus of an address; None if none does."""
        functions = [machine.functions[at] for at in self.all() if at in machine.functions]
        found = [
            each
            for each in functions
            if each.bridge is not None
            and each.sbdf.segment == sbdf.segment
            and each.bridge.secondary <= sbdf.bus <= each.bridge.subordinate
        ]
        return min(found, key=lambda each: each.sbdf.bus, default=None)

    def must_be_told_anew(self, machine: Machine, bridge: Function) -> bool:
        """Return True if Xen must be told again of a bridge, because Xen does not know its secondary bus.

        The result is False on AMD, because AMD-Vi does not look for bridges.
        """
        numbers, told = bridge.bridge, self.announced(bridge.sbdf)
        if numbers is None or vendor_of(machine) is Vendor.AMD:
            return False
        return told is None or not told[0] <= numbers.secondary <= told[1]


NO_BRIDGES = Bridges()


def is_conventional_bridge(function: Function) -> bool:
    """Return True if a function that can be read is a bridge to conventional PCI."""
    if role_of(function.ids.class_code, None) is not Role.BRIDGE or not function.answers:
        return False
    return function.express is None or function.express.port_type == PCIE_TO_PCI


def is_endpoint(function: Function) -> bool:
    """Return True if DMA of a function would have the bridge's address behind a conventional bridge."""
    role = role_of(function.ids.class_code, None)
    return role in (Role.ENDPOINT, Role.IOMMU) and function.express is None and function.physfn is None


def behind(machine: Machine, top: Sbdf) -> Iterator[Function]:
    """Yield the conventional functions behind a bridge, at any depth."""
    waiting = machine.children(top)
    while waiting:
        function = waiting.pop()
        if is_endpoint(function):
            yield function
        waiting += machine.children(function.sbdf)


def in_use(functions: Iterable[Function], xen: XenView) -> list[str]:
    """Return the functions in use as text, sorted: the address with the driver, or with an owner not dom0.

    A function that dom0 does not own is left out if Xen does not list it or lists it without an owner.
    """
    found = []
    for function in functions:
        if not xen.in_dom0(function.sbdf):
            if function.sbdf in xen.known and function.sbdf not in xen.orphans:
                found.append(f"{function.sbdf} ({xen.owner(function.sbdf)})")
        elif function.driver is not None:
            found.append(f"{function.sbdf} ({function.driver})")
    return sorted(found)


def finding_of_severed(function: Function, bridge: Function, machine: Machine) -> Finding:
    """Return the finding that Xen has removed the entry that a function shares with others (`bridge`).

    `function` is behind `bridge`, the uppermost conventional bridge above it. On AMD the functions share an
    entry only if IVRS has an alias for them, which a PVH dom0 cannot read.
    """
    stopped = "may be stopped" if vendor_of(machine) is Vendor.AMD else "is stopped"
    cure = "unbind the driver of any one function behind this bridge, then pcipt resync"
    if function.driver is None:
        cure = "pcipt resync tells Xen of the function again"
    return Finding(
        "dma-stopped",
        f"its DMA {stopped}. A function behind the bridge {bridge.sbdf} was removed, and Xen then also "
        f"removed the IOMMU's entry that all functions behind this bridge share; {cure}",
    )
