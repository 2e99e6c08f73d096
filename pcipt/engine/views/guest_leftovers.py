"""Finds pages and ports that a guest may access and that do not belong to its functions.

Xen prints these pages and ports for a debug key: it prints all domains and holds a lock meanwhile. So Xen is
asked once for all guests, and only if a guest has, or had, a function.
"""

from collections.abc import Iterable, Mapping

from pcipt.engine.memory import Memory
from pcipt.engine.views.reserved import Reserved
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import (
    Address,
    Finding,
    Frames,
    Function,
    Machine,
    Range,
    RawFunction,
    Resource,
    Sbdf,
    frames_from_range,
)
from pcipt.pci.bars import ROM_INDEX
from pcipt.pci.permissions import compare_permissions
from pcipt.remap.view import XenView
from pcipt.xen.interface import Hypervisor, Permissions


class GuestLeftovers:
    """The findings about guests, by function. `trouble` is why the last question to Xen failed, or None.

    A function that has left a guest keeps its findings for as long as the guest keeps pages or ports of it.
    """

    def __init__(self, xen: Hypervisor, reserved: Reserved, memory: Memory) -> None:
        self._xen = xen
        self._reserved = reserved
        self._memory = memory
        self.findings: dict[Sbdf, tuple[Finding, ...]] = {}
        self.trouble: str | None = None

    def look(self, machine: Machine, raws: Mapping[Sbdf, RawFunction], view: XenView) -> list[int]:
        """Compare what guests may access with what their functions decode; replace `findings`.

        The guests are those that have a function, and those in `memory.left_guests`. A function is removed
        from `left_guests` if there is no finding about it. If Xen cannot be asked, the findings and
        `left_guests` stay, and the result is empty.
        Shape:  the numbers of the guests that were compared, sorted. A guest that has ended is left out.
        """
        owned: dict[int, list[Function]] = {}
        for sbdf in view.elsewhere:
            guest, function = view.guest(sbdf), machine.functions.get(sbdf)
            if guest is not None and function is not None:
                owned.setdefault(guest, []).append(function)
        left_guests = self._memory.left_guests
        concerned = sorted({*owned, *left_guests.values()})
        self.trouble = None
        held = self._permissions() if concerned else {}
        if self.trouble is not None:
            return []  # whoever left is remembered, what was found stands
        self.findings = {}
        for guest in concerned:
            if guest in held:
                self._compare(guest, held[guest], owned.get(guest, []), raws)
        for sbdf in [sbdf for sbdf in left_guests if sbdf not in self.findings]:
            del left_guests[sbdf]
        return [guest for guest in concerned if guest in held]

    def _permissions(self) -> Mapping[int, Permissions]:
        """Return what each guest may access; empty, with `trouble` set, if Xen cannot be asked."""
        try:
            return self._xen.permissions()
        except (HypervisorError, UnsupportedError) as error:
            self.trouble = str(error)
            return {}

    def _compare(
        self, guest: int, held: Permissions, owned: list[Function], raws: Mapping[Sbdf, RawFunction]
    ) -> None:
        """Add findings about pages and ports that `guest` may access wrongly, or lacks wrongly.

        `held` is what the guest may access. `owned` are its functions; empty if all have left it. The finding
        `guest-bar-moved` is added to the function with this BAR. The findings `guest-leftover` are added to
        each function that has left this guest, or, if none has, to each function in `owned`.
        """
        rightful = [frames for function in owned for frames in self._rightful(function, raws)]
        left = [sbdf for sbdf, had in self._memory.left_guests.items() if had == guest]
        for function in owned:
            found = compare_permissions(held.memory, held.ports, [function])
            self._put(function.sbdf, (each for each in found if each.code == "guest-bar-moved"))
        found = compare_permissions(held.memory, held.ports, owned, rightful)
        leftovers = [each for each in found if each.code == "guest-leftover"]
        for sbdf in left or [function.sbdf for function in owned]:
            self._put(sbdf, leftovers)

    def _put(self, sbdf: Sbdf, findings: Iterable[Finding]) -> None:
        """Add findings to those of a function."""
        found = tuple(findings)
        if found:
            self.findings[sbdf] = (*self.findings.get(sbdf, ()), *found)

    def _rightful(self, function: Function, raws: Mapping[Sbdf, RawFunction]) -> list[Frames]:
        """Return pages beside BARs that libxl lets a guest access: reserved regions, Linux's ROM resource."""
        raw = raws.get(function.sbdf)
        lines = raw.resources[ROM_INDEX : ROM_INDEX + 1] if raw is not None else ()
        roms = [
            frames_from_range(Range(Address(line.start), line.size))
            for line in lines
            if line.size and line.flags & Resource.MEMORY and not line.flags & Resource.UNSET
        ]
        return [*self._reserved.of(function.sbdf), *roms]
