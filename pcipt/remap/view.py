"""The three views side by side: hardware and Linux in `Machine`, Xen in `XenView`; and where they differ."""

from collections.abc import Mapping

import attrs

from pcipt.pci import Finding, Machine, Sbdf


@attrs.frozen
class XenView:
    """What Xen said, as far as it was asked.

    `known` are the functions it lists; `orphans` those of them that nobody owns; `elsewhere` those that a
    guest or Xen itself has, with the owner in words. `custody_told` is False where Xen could not be asked.
    """

    known: frozenset[Sbdf] = frozenset()
    orphans: frozenset[Sbdf] = frozenset()
    elsewhere: Mapping[Sbdf, str] = attrs.field(factory=dict)
    custody_told: bool = True

    def in_dom0(self, sbdf: Sbdf) -> bool:
        return sbdf in self.known and sbdf not in self.orphans and sbdf not in self.elsewhere

    def with_known(self, sbdf: Sbdf) -> "XenView":
        return attrs.evolve(self, known=self.known | {sbdf}, orphans=self.orphans - {sbdf})

    def without(self, sbdf: Sbdf) -> "XenView":
        elsewhere = {key: owner for key, owner in self.elsewhere.items() if key != sbdf}
        return attrs.evolve(
            self, known=self.known - {sbdf}, orphans=self.orphans - {sbdf}, elsewhere=elsewhere
        )


def ghosts(machine: Machine, xen: XenView) -> list[Sbdf]:
    """List what Xen knows and the machine does not have."""
    return sorted(xen.known - machine.functions.keys())


def missing(machine: Machine, xen: XenView) -> list[Sbdf]:
    """List what the machine has and Xen does not know, or knows without an owner."""
    return [
        sbdf for sbdf in machine.functions if sbdf.fits_xen and (sbdf not in xen.known or sbdf in xen.orphans)
    ]


def disagreements(machine: Machine, xen: XenView) -> list[tuple[Sbdf, Finding]]:
    """Say what hardware and Linux on one side and Xen on the other disagree about."""
    found = []
    for sbdf in missing(machine, xen):
        if sbdf in xen.orphans:
            text = (
                "Xen lists it without an owner (orphan): passthrough and MSI fail; removing it kills old Xens"
            )
            found.append((sbdf, Finding("orphan", text)))
        else:
            text = "Linux uses it but Xen does not know it: passthrough and MSI fail"
            found.append((sbdf, Finding("unknown-to-xen", text)))
    for sbdf in ghosts(machine, xen):
        owner = xen.elsewhere.get(sbdf)
        text = "Xen lists it but Linux does not have it (ghost)"
        text += f"; its owner is {owner}" if owner else "; pcipt resync shows what can be done"
        found.append((sbdf, Finding("ghost", text)))
    return found
