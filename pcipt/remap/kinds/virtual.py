"""Physical functions of which Xen is told while their virtual functions are on. Pure.

Xen measures the BARs of virtual functions when it is told of their physical function, but only if VF Enable
and VF Memory Enable are off. Without these sizes Xen does not find the MSI-X tables of the virtual functions,
and MSI-X of a virtual function fails in a guest. If Xen is told of the physical function again while both
bits are off, Xen measures the BARs.
Source: Xen drivers/passthrough/pci.c (pci_add_device, vf_rlen), arch/x86/msi.c (read_pci_mem_bar), 4.17 to
        4.22; linux drivers/pci/iov.c (sriov_init switches them off before the kernel tells Xen).
"""

from collections.abc import Collection, Container, Iterator, Mapping

from pcipt.pci import Finding, Function, Machine, Sbdf
from pcipt.pci.requester import is_extended
from pcipt.remap.actions import AddDevice
from pcipt.remap.view import XenView


def physical_functions(machine: Machine) -> frozenset[Sbdf]:
    """Return the functions that have virtual functions in Linux."""
    return frozenset(each.physfn for each in machine.functions.values() if each.physfn is not None)


def vfs_are_on(function: Function, physical: Container[Sbdf]) -> bool:
    """Return True if VF Enable or VF Memory Enable of a function is set.

    If the function does not answer, for example because its bus was renumbered, the result is True if it is
    in `physical` (`physical_functions`). If it answers and its SR-IOV structure was not read, the result is
    False.
    """
    if function.sriov is None:
        return not function.answers and function.sbdf in physical
    return function.sriov.vf_enable or function.sriov.memory_enable


def plan_sizing(
    machine: Machine, xen: XenView, unsized: Collection[Sbdf], only: Collection[Sbdf] | None = None
) -> Iterator[AddDevice]:
    """Yield an addition for each function of dom0 in `unsized` whose virtual functions are off now.

    `unsized` is `Ledger.unsized`. If `only` is given, functions that are not in it are left out.
    """
    for sbdf in sorted(unsized):
        function = machine.functions.get(sbdf)
        if function is None or function.sriov is None or not xen.in_dom0(sbdf):
            continue
        if (only is None or sbdf in only) and not vfs_are_on(function, ()):
            extended = is_extended(function, machine, sbdf.device)
            reason = "its virtual functions are off now: Xen can size their BARs"
            yield AddDevice(sbdf, reason, extended=extended)


def unsized_finding(
    sbdf: Sbdf, xen: XenView, unsized: Container[Sbdf], moves: Mapping[Sbdf, Sbdf | None]
) -> Iterator[Finding]:
    """Yield a finding if Xen has no BAR sizes for the virtual functions of `sbdf`.

    `sbdf` is Linux's address; `moves` are the renumbered functions by Linux's address.
    """
    now = moves.get(sbdf, sbdf)
    if now is None or now not in unsized or not xen.in_dom0(now):
        return
    cure = "write 0 to its sriov_numvfs, then pcipt resync, then switch the virtual functions on again"
    if now != sbdf:
        cure = "write 0 to its sriov_numvfs, remove it in sysfs, and rescan the bus"
    yield Finding(
        "vfs-unsized",
        "Xen was told of it while its virtual functions were on, and has no sizes for their BARs: MSI-X of "
        f"the virtual functions fails in guests; {cure}",
    )
