"""Compare the functions that Xen lists (`XenView`) with those of hardware and Linux (`Machine`). Pure.

The differences have names. A ghost: Xen lists the function, the machine does not have it. Missing: the
machine has the function, Xen does not list it or lists it as an orphan, that is without an owner.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

import attrs

from pcipt.pci import Finding, Machine, Sbdf
from pcipt.xen.releases import DEVICE_RESET, ORPHAN_REMOVAL_PANICS

DOM0, QUARANTINE, GUEST = "dom0", "quarantine", "guest"  # owners in words; a guest with its number


@attrs.frozen
class XenView:
    """The functions that Xen lists, and who owns them, as far as Xen was asked.

    `known` are all functions that Xen lists. The other sets are parts of `known`: `orphans` have no owner;
    `elsewhere` are functions of a guest or of Xen itself, each with that owner in words; `quarantined` are
    functions of dom_io, as far as Xen was asked for them (`Hypervisor.owners`). A function of `known` that is
    in none of these sets is dom0's, as far as is known. If `custody_told` is False, Xen could not be asked
    who owns some of the functions. `unread` are functions whose owner only Xen's console tells, and it could
    not be read. `untold` are those of which no console can tell it here: what the hypercall says counts, and
    it has one answer for dom0 and quarantine.
    """

    known: AbstractSet[Sbdf] = frozenset()
    orphans: AbstractSet[Sbdf] = frozenset()
    elsewhere: Mapping[Sbdf, str] = attrs.field(factory=dict)
    custody_told: bool = True
    quarantined: AbstractSet[Sbdf] = frozenset()
    unread: AbstractSet[Sbdf] = frozenset()
    untold: AbstractSet[Sbdf] = frozenset()

    def is_owner_told(self, sbdf: Sbdf) -> bool:
        """Return False if the owner of a function could not be looked at: `owner` is a guess then."""
        return sbdf not in self.unread and sbdf not in self.untold

    def in_dom0(self, sbdf: Sbdf) -> bool:
        """Return True if Xen lists the function and no other owner than dom0 is known.

        Return False if Xen does not list it, and for an orphan, a quarantined function, and a function of a
        guest or of Xen itself.
        """
        owned = sbdf in self.known and sbdf not in self.orphans
        return owned and sbdf not in self.elsewhere and sbdf not in self.quarantined

    def owner(self, sbdf: Sbdf) -> str:
        """Return the owner of a function in words.

        The words are "unknown to Xen" if Xen does not list the function, "nobody (orphan)", "quarantine", the
        words in `elsewhere` (for example "guest 3"), else "dom0".
        """
        if sbdf not in self.known:
            return "unknown to Xen"
        if sbdf in self.orphans:
            return "nobody (orphan)"
        if sbdf in self.quarantined:
            return QUARANTINE
        return self.elsewhere.get(sbdf, DOM0)

    def guest(self, sbdf: Sbdf) -> int | None:
        """Return the domain number of the guest that owns a function, or None if no guest owns it."""
        word, _, number = self.elsewhere.get(sbdf, "").partition(" ")
        return int(number) if word == GUEST and number.isdecimal() else None

    def with_known(self, sbdf: Sbdf) -> "XenView":
        """Return a view in which Xen lists this function and it is not an orphan. This view is unchanged."""
        return attrs.evolve(self, known=self.known | {sbdf}, orphans=self.orphans - {sbdf})

    def without(self, sbdf: Sbdf) -> "XenView":
        """Return a view in which Xen does not list this function. This view is unchanged."""
        return attrs.evolve(
            self,
            known=self.known - {sbdf},
            orphans=self.orphans - {sbdf},
            elsewhere={key: owner for key, owner in self.elsewhere.items() if key != sbdf},
            quarantined=self.quarantined - {sbdf},
            unread=self.unread - {sbdf},
            untold=self.untold - {sbdf},
        )


def ghosts(machine: Machine, xen: XenView, only: Collection[Sbdf] | None = None) -> list[Sbdf]:
    """Return the addresses that Xen lists and at which the machine has no function, sorted.

    If `only` is given, addresses that are not in it are left out.
    """
    asked = xen.known if only is None else {sbdf for sbdf in only if sbdf in xen.known}
    return sorted(sbdf for sbdf in asked if sbdf not in machine.functions)


def missing(machine: Machine, xen: XenView, only: Collection[Sbdf] | None = None) -> list[Sbdf]:
    """Return the functions of the machine that Xen does not list or lists as orphans, sorted by address.

    Functions in segments that Xen cannot name (above ffff) are left out. If `only` is given, functions at
    addresses that are not in it are left out.
    """
    asked = machine.functions if only is None else sorted(sbdf for sbdf in only if sbdf in machine.functions)
    return [sbdf for sbdf in asked if sbdf.fits_xen and (sbdf not in xen.known or sbdf in xen.orphans)]


_ORPHAN = (
    "Xen lists it without an owner (orphan): passthrough and MSI fail. Do not remove it under Xen before "
    f"{ORPHAN_REMOVAL_PANICS.ends}, and do not bind it to xen-pciback on a PVH host with Xen from "
    f"{DEVICE_RESET.begins} on: Xen would panic"
)


_GHOST_WITHOUT_OWNER = (
    f", without an owner (orphan). Under Xen before {ORPHAN_REMOVAL_PANICS.ends} do not plug a device in at "
    "this address: its removal would make Xen panic"
)


def disagreements(
    machine: Machine,
    xen: XenView,
    moves: Mapping[Sbdf, Sbdf | None] = MappingProxyType({}),
    only: Collection[Sbdf] | None = None,
    cut: Mapping[Sbdf, Sbdf] = MappingProxyType({}),
) -> list[tuple[Sbdf, Finding]]:
    """Return a finding for each function about which Xen disagrees with hardware and Linux.

    The codes are "orphan", "unknown-to-xen", "ghost" and "moved". `moves` are the functions that bus
    renumbering moved, by Linux's address (`find_moves`). Each of them has the finding "moved" at Linux's
    address and no other finding there; its new address is not reported as a ghost. A missing function in a
    segment that Xen cannot name has no finding. `cut` has functions in such segments by the address that
    Linux told Xen for them (`Sbdf.cut`): an orphan there is told of their controller (`CutOrphans`), and is
    no ghost. If `only` is given, addresses that are not in it have no finding.

    Shape:  (address, finding): missing functions first, then ghosts, both sorted by address; then moved
            functions in the order of `moves`.
    """
    found = []
    for sbdf in missing(machine, xen, only):
        if sbdf in moves:
            continue
        if sbdf in xen.orphans:
            found.append((sbdf, Finding("orphan", _ORPHAN)))
        else:
            text = "Linux uses it but Xen does not know it: passthrough and MSI fail"
            found.append((sbdf, Finding("unknown-to-xen", text)))
    here = frozenset(moves.values())
    for sbdf in ghosts(machine, xen, only):
        if sbdf in here or (sbdf in cut and sbdf in xen.orphans):
            continue
        owner = xen.elsewhere.get(sbdf)
        text = "Xen lists it but Linux does not have it (ghost)"
        text += f": Linux cut the segment of {cut[sbdf]} to 16 bits" if sbdf in cut else ""
        text += _GHOST_WITHOUT_OWNER if sbdf in xen.orphans else ""
        text += f"; its owner is {owner}" if owner else "; pcipt resync shows what can be done"
        found.append((sbdf, Finding("ghost", text)))
    found += [
        (sbdf, _moved(now, machine, xen)) for sbdf, now in moves.items() if only is None or sbdf in only
    ]
    return found


def _moved(now: Sbdf | None, machine: Machine, xen: XenView) -> Finding:
    """Return the finding "moved". `now` is the new address, None if no bus number leads to the function."""
    text = "its bus was renumbered"
    if now is None:
        text += (
            ": no bus number leads to the function any more; give the bridges above it consistent bus "
            "numbers, or remove it in sysfs and rescan"
        )
    elif now in machine.functions:
        text += (
            f", so the function is at {now} now. Linux has another function at this address: remove both "
            "functions in sysfs, then rescan the bus"
        )
    elif xen.in_dom0(now):
        text += (
            f", so the function is at {now} now. Xen knows this address, but Linux does not: remove the "
            "function in sysfs, then rescan the bus"
        )
    else:
        text += (
            f", so the function is at {now} now. Xen does not know this address: DMA and interrupts of the "
            "function do not work; unbind the drivers behind the renumbered bridge, then pcipt resync; or "
            "give that bridge its old bus numbers"
        )
    return Finding("moved", text)
