"""The three views side by side: hardware and Linux in `Machine`, Xen in `XenView`; and where they differ."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import attrs

from pcipt.pci import Finding, Machine, Sbdf

DOM0, QUARANTINE, GUEST = "dom0", "quarantine", "guest"  # owners in words; a guest with its number


@attrs.frozen
class XenView:
    """What Xen said, as far as it was asked.

    `known` are the functions it lists; `orphans` those of them that nobody owns; `elsewhere` those that a
    guest or Xen itself has, with the owner in words; `quarantined` those that dom_io has, as far as that was
    asked (`Hypervisor.owners`). `custody_told` is False where Xen could not be asked.
    """

    known: AbstractSet[Sbdf] = frozenset()
    orphans: AbstractSet[Sbdf] = frozenset()
    elsewhere: Mapping[Sbdf, str] = attrs.field(factory=dict)
    custody_told: bool = True
    quarantined: AbstractSet[Sbdf] = frozenset()

    def in_dom0(self, sbdf: Sbdf) -> bool:
        owned = sbdf in self.known and sbdf not in self.orphans
        return owned and sbdf not in self.elsewhere and sbdf not in self.quarantined

    def owner(self, sbdf: Sbdf) -> str:
        """Say in words who has a function."""
        if sbdf not in self.known:
            return "unknown to Xen"
        if sbdf in self.orphans:
            return "nobody (orphan)"
        if sbdf in self.quarantined:
            return QUARANTINE
        return self.elsewhere.get(sbdf, DOM0)

    def guest(self, sbdf: Sbdf) -> int | None:
        """Give the number of the guest that has a function; None where none has."""
        word, _, number = self.elsewhere.get(sbdf, "").partition(" ")
        return int(number) if word == GUEST and number.isdecimal() else None

    def with_known(self, sbdf: Sbdf) -> "XenView":
        return attrs.evolve(self, known=self.known | {sbdf}, orphans=self.orphans - {sbdf})

    def without(self, sbdf: Sbdf) -> "XenView":
        return attrs.evolve(
            self,
            known=self.known - {sbdf},
            orphans=self.orphans - {sbdf},
            elsewhere={key: owner for key, owner in self.elsewhere.items() if key != sbdf},
            quarantined=self.quarantined - {sbdf},
        )


def ghosts(machine: Machine, xen: XenView, only: Collection[Sbdf] | None = None) -> list[Sbdf]:
    """List what Xen knows and the machine does not have; `only` of these."""
    asked = xen.known if only is None else {sbdf for sbdf in only if sbdf in xen.known}
    return sorted(sbdf for sbdf in asked if sbdf not in machine.functions)


def missing(machine: Machine, xen: XenView, only: Collection[Sbdf] | None = None) -> list[Sbdf]:
    """List what the machine has and Xen does not know, or knows without an owner; `only` of these."""
    asked = machine.functions if only is None else sorted(sbdf for sbdf in only if sbdf in machine.functions)
    return [sbdf for sbdf in asked if sbdf.fits_xen and (sbdf not in xen.known or sbdf in xen.orphans)]


def disagreements(
    machine: Machine,
    xen: XenView,
    moves: Mapping[Sbdf, Sbdf | None] = MappingProxyType({}),
    only: Collection[Sbdf] | None = None,
) -> list[tuple[Sbdf, Finding]]:
    """Say what hardware and Linux on one side and Xen on the other disagree about; `only` of these addresses.

    A function that renumbering moved (`moves`, by Linux's address) is one finding, at Linux's address.
    """
    found = []
    for sbdf in missing(machine, xen, only):
        if sbdf in moves:
            continue
        if sbdf in xen.orphans:
            text = (
                "Xen lists it without an owner (orphan): passthrough and MSI fail; removing it kills old Xens"
            )
            found.append((sbdf, Finding("orphan", text)))
        else:
            text = "Linux uses it but Xen does not know it: passthrough and MSI fail"
            found.append((sbdf, Finding("unknown-to-xen", text)))
    here = frozenset(moves.values())
    for sbdf in ghosts(machine, xen, only):
        if sbdf in here:
            continue
        owner = xen.elsewhere.get(sbdf)
        text = "Xen lists it but Linux does not have it (ghost)"
        text += f"; its owner is {owner}" if owner else "; pcipt resync shows what can be done"
        found.append((sbdf, Finding("ghost", text)))
    found += [
        (sbdf, _moved(now, machine, xen)) for sbdf, now in moves.items() if only is None or sbdf in only
    ]
    return found


def _moved(now: Sbdf | None, machine: Machine, xen: XenView) -> Finding:
    text = "its bus was renumbered"
    if now is None:
        text += ": no bus number leads to it; give the bridges above it consistent numbers, or rescan"
    elif now in machine.functions:
        text += f" to {now}, which Linux gives to another function: remove both in sysfs, then rescan the bus"
    elif xen.in_dom0(now):
        text += f" to {now}, which Xen knows; Linux cannot reach it until it is removed and rescanned"
    else:
        text += (
            f" to {now}, which Xen does not know: its DMA and interrupts go astray; unbind the drivers "
            "behind the bridge, then pcipt resync, or put the bridge's bus numbers back"
        )
    return Finding("moved", text)
