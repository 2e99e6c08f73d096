"""How each kind of action is called: the hypercalls and register writes, and what shows that they worked."""

from collections.abc import Callable, Mapping, Sequence
from errno import EINVAL
from functools import partial
from typing import Any

import attrs

from pcipt.engine.interfaces import Host, Policy
from pcipt.engine.registers import Registers
from pcipt.engine.views.views import Views
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Frames
from pcipt.remap.actions import (
    Action,
    AddDevice,
    CheckUnmapped,
    GuardPort,
    MapMmio,
    Quarantine,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.guard.facts import Precaution
from pcipt.remap.guard.msix import msix_not_taken
from pcipt.remap.holes import sample_of
from pcipt.remap.intervals import without
from pcipt.remap.steps import AnyStep
from pcipt.xen.interface import DeviceFlags, Hypervisor
from pcipt.xen.releases import ORPHAN_REMOVAL_PANICS


@attrs.frozen
class Tools:
    """What a performer writes to: Xen, registers of the hardware, the ledger; and the policy that it obeys.

    `append` writes steps of the ledger: they are on disk when it returns, else it raises OSError. `host` is
    asked to find a driver, to guard a port, and to quarantine a function.
    """

    xen: Hypervisor
    registers: Registers
    append: Callable[[Sequence[AnyStep]], None]
    policy: Policy
    host: Host


def _add(tools: Tools, views: Views, action: AddDevice, precaution: Precaution) -> str:
    """Tell Xen of a function; return a remark if its old record had to go first, else "".

    Raises: PciptError on failure, or if Xen does not list it now.
    """
    remark = ""

    def call() -> None:
        nonlocal remark
        flags = DeviceFlags(action.extended, action.physfn)
        try:
            tools.xen.add_device(action.sbdf, flags)
        except HypervisorError as error:
            if error.errno != EINVAL or not _has_stale_record(tools, views, action):
                raise
            remark = _remove(tools, views, RemoveDevice(action.sbdf, action.reason), precaution)
            tools.xen.add_device(action.sbdf, flags)

    decode_off = precaution is Precaution.DECODE_OFF
    if action.moved_from is not None:
        detour = views.detour(action.moved_from)
        refuse = partial(msix_not_taken, facts=views.remembered())
        tools.registers.add_by_detour(action.moved_from, detour, call, decode_off=decode_off, refuse=refuse)
    elif decode_off:
        with tools.registers.memory_decode_off(action.sbdf):
            call()
    elif views.pvh:
        with tools.registers.decode_kept(action.sbdf):
            call()
    else:
        call()
    if not tools.xen.known([action.sbdf])[0]:
        raise UnsupportedError("add-device", "Xen reported success, but does not list the function")
    return remark


def _has_stale_record(tools: Tools, views: Views, action: AddDevice) -> bool:
    """Return True if Xen has the function as an orphan, and can remove it.

    Xen sees what a function is only when it makes its record. If nothing answered then, each later add fails.
    Source: Xen drivers/passthrough/pci.c (alloc_pdev, pdev_type).
    """
    return action.sbdf in views.view.orphans and not ORPHAN_REMOVAL_PANICS.of(tools.xen.identity.version)


def _remove(tools: Tools, _views: Views, action: RemoveDevice, _precaution: Precaution) -> str:
    """Make Xen forget a function; return a remark if it was an orphan, else "".

    Xen removes an orphan and reports EINVAL all the same.
    Raises: PciptError if Xen refuses, or still lists it.
    """
    try:
        tools.xen.remove_device(action.sbdf)
    except HypervisorError as error:
        if error.errno != EINVAL or tools.xen.known([action.sbdf])[0]:
            raise
        return "Xen listed the function without an owner"
    if tools.xen.known([action.sbdf])[0]:
        raise UnsupportedError("remove-device", "Xen reported success, but still lists the function")
    return ""


def _map(tools: Tools, views: Views, action: MapMmio | RestoreReserved, _precaution: Precaution) -> str:
    """Map the pages of an action 1:1 into dom0; return "". Raises: PciptError if Xen refuses."""
    views.memory.holes.filled(action.frames)
    tools.xen.map_mmio(action.frames)
    return ""


def _unmap(tools: Tools, views: Views, action: UnmapMmio | WithdrawReserved, _precaution: Precaution) -> str:
    """Unmap the pages of an action; return a remark if some of them were not mapped, else "".

    If Xen may map them again for dom0, they are remembered as a hole.
    Raises: PciptError if Xen refuses for another reason.
    """
    all_mapped = _unmapped(tools, action.frames)
    if views.pf_fixup.on:
        views.memory.holes.made(action)
    return "" if all_mapped else "some of the pages were not mapped any more"


def _check(tools: Tools, views: Views, action: CheckUnmapped, _precaution: Precaution) -> str:
    """Unmap pages of a hole once more; return a remark on what that has shown.

    If a page of the sample had come back, all pages of the hole are unmapped.
    Raises: PciptError if Xen refuses for another reason than a hole.
    """
    sample = sample_of(action.frames)
    returned = sum(_unmapped(tools, page) for page in sample)
    for between in without((action.frames,), sample) if returned else ():
        _unmapped(tools, between)
    views.memory.holes.checked(action, returned)
    if not returned:
        return "the pages were not mapped"
    return (
        f"{returned} of the {len(sample)} pages that pcipt checked were mapped again, because dom0 accessed "
        "them"
    )


def _unmapped(tools: Tools, frames: Frames) -> bool:
    """Unmap pages; return False if some of them were not mapped.

    Raises: PciptError if Xen refuses for another reason.
    """
    try:
        tools.xen.unmap_mmio(frames)
    except HypervisorError as error:
        if error.errno != EINVAL:
            raise
        return False
    return True


def _rewrite(tools: Tools, views: Views, action: RewriteBar, _precaution: Precaution) -> str:
    """Repeat a BAR write that vPCI ignored; return "".

    vPCI moves the pages of the BAR. If another program made Xen forget the function meanwhile, nobody did.
    Raises: PciptError as `Registers.rewrite_bar`, or if Xen listed the function before and does not now.
    """
    tools.registers.rewrite_bar(action.sbdf, action.bar, action.address)
    if action.sbdf in views.view.known and not tools.xen.known([action.sbdf])[0]:
        raise UnsupportedError(
            "rewrite-bar", "another program made Xen forget the function, so vPCI has not moved the BAR"
        )
    return ""


def _rewrite_command(tools: Tools, _views: Views, action: RewriteCommand, _precaution: Precaution) -> str:
    """Write a Command register as it is; return "". Raises: PciptError as `Registers.rewrite_command`."""
    tools.registers.rewrite_command(action.sbdf)
    return ""


def _guard_port(tools: Tools, views: Views, action: GuardPort, _precaution: Precaution) -> str:
    """Put a port into the list of xen-pciback, or take it out; return "". Raises: PciptError on failure."""
    tools.host.guard_port(action.sbdf, on=action.on)
    guarded = views.memory.ledger.ports.guarded
    (guarded.add if action.on else guarded.discard)(action.sbdf)
    return ""


def _quarantine(tools: Tools, _views: Views, action: Quarantine, _precaution: Precaution) -> str:
    """Start xl; what came of it is read later (`Reason.TAKEN`). Raises: PciptError as `Host.quarantine`."""
    tools.host.quarantine(action.sbdf)
    return "xl was started"


PERFORM: Mapping[type[Action], Callable[[Tools, Views, Any, Precaution], str]] = {
    AddDevice: _add,
    RemoveDevice: _remove,
    MapMmio: _map,
    UnmapMmio: _unmap,
    RewriteBar: _rewrite,
    RewriteCommand: _rewrite_command,
    WithdrawReserved: _unmap,
    RestoreReserved: _map,
    CheckUnmapped: _check,
    GuardPort: _guard_port,
    Quarantine: _quarantine,
}
