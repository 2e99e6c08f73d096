"""Everything that cannot be derived from the present state of hardware, Linux and Xen, in one value.

field           written by                          dropped                          survives a restart
ledger          performer, reconciliation           at a new boot                    yes: ledger, mappings
ledger.sizes    reconciliation, when vPCI sets up   when the function leaves         yes: mappings
ledger.given_up reconciliation, when vPCI failed    when it leaves dom0 or Xen       yes: mappings
ledger.complaints settling, from Xen's console      when Linux drops it              yes: mappings
ledger.faulty   reconciliation, at each reading     when the function leaves         yes: mappings
ledger.severed  questions to Xen, performer         when Xen makes the entry again    yes: mappings
ledger.roster   reconciliation, at each plan (PVH)  when the place is left           yes: steps, mappings
ledger.ports    reconciliation, control socket      when it leaves, or is policed no more  yes: mappings
boot            first reconciliation of a boot      at a new boot                    yes: boot
intents         watcher, from configuration writes  when hardware has the address    no
trapped         watcher, from configuration writes  when a plan was made for it      no
removed         machine state, first reading        when Xen does not list it        no
unserved        performer; settling, from console   when Linux drops it              no
untyped         performer, when an add fails        when Linux drops it              no
served          views, from Xen's list              never: an address counts once    no
given_up        reconciliation                      when Xen or Linux drops it       no
inherited       engine, when it is made             when everything was compared once    no
told_given_up   engine, first reading of console    never: `ledger.given_up` is looked at  no
former          machine state, and at a removal     when the place is left again      no
answered        machine state, at each reading      when it answers again, or leaves  no
vacated         machine state, when Linux drops it  when a plan was made for it      no
bridge_numbers  machine state, at each reading      when the bridge leaves           no
shapes          questions to Xen (`note_shapes`)    when Xen or Linux drops it       PVH: ledger.roster
altered         machine state, at each reading      when it is as before, or leaves  no
conventional    machine state, at each reading      when the bridge leaves           no
outside_window  reconciliation                      when no BAR is outside any more  no
refused         reconciliation                      when it decodes again, or leaves  no
left_guests     views, when an owner changed        when the guest keeps nothing     no
unproven        reconciliation, after xen-pciback   when its driver has its pages    no
held_regions    control socket (a reclaim)          when the client disconnects      no
complaints      views, from Xen's console           next EVERYTHING, or function left  lasting: ledger
faults          views, from Xen's console           next EVERYTHING, or function left  no
fault_counts    views, from Xen's console           never: one number for each sort  no
not_believed    views, from Xen's console           next EVERYTHING                  no
faulted         views, from Xen's console           device left dom0, or dropped     no
withdrawn_at    performer (withdrawals)             never: one time for a region     no
listed_devices  reconciliation                      never: one entry for a region    no
holes           performer (unmaps and checks)       when needed or checked enough    regions: ledger
"""

from collections import Counter

import attrs

from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import BarKind, Frames, Function, Sbdf
from pcipt.remap.holes import Holes
from pcipt.remap.ignored import Intents
from pcipt.remap.ledger import Ledger
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.vpci.shape import Altered
from pcipt.remap.vpci.trapped import Trapped
from pcipt.xen.complaints import Complaint
from pcipt.xen.dma_faults import DmaFault, FaultKey, There


@attrs.define
class Memory:
    """The memory of one engine; the table above says who writes each field and when its content is dropped.

    `ledger` holds the actions of pcipt in this boot, the pages that pcipt and vPCI mapped, and the drivers
    that were bound before Xen knew their functions (`late.py` writes it and drops it when the driver is bound
    anew), and what dom0 may have below policed ports. `boot` holds the functions and bridges at the first
    reading of this boot, None before it. `intents` holds BAR writes that vPCI may have dropped.
    `trapped` holds what writes made vPCI map and unmap, and the
    BARs that it takes for mapped although a reset has cleared them. `given_up` holds the places of functions
    that dom0 has without vPCI by what Xen's console said: Xen could not set them up at boot, or vPCI gave
    them up because it could not map or unmap a page (Xen 4.17 and 4.18). Those that it was seen to give up
    are in the ledger. `refused` holds the places of functions for which vPCI refused to switch memory decode
    on. `inherited` is True while the ledger may have pages of an earlier service, and nobody saw what vPCI
    has unmapped since. `told_given_up` is `ledger.given_up` of an earlier service: nobody saw whether Linux
    has removed and added such a function since, and whether vPCI has it again. It has those, too, of which
    Xen's console said so before this service began. `removed` holds addresses that Linux had and dropped:
    ghosts are removed from Xen only at these addresses, and after a renumbering (`plan_announcements`).
    `unserved` holds addresses of which Xen said that no IOMMU unit serves them: that stays so until the next
    boot (what Xen said at boot is in `ledger.complaints`). `untyped` holds addresses of orphans of which Xen
    does not know what they are: each add fails, where Xen cannot remove an orphan. `served` holds addresses
    at which this service saw Xen take a function for dom0: a unit serves them until the next boot. `former`
    holds by place the function that Linux last dropped there.
    `answered` holds by place each function that does not answer, as it was when it answered last. `vacated`
    holds each place whose function Linux dropped and for which no plan was made since, with the former
    address. `bridge_numbers` holds the (secondary, subordinate) bus of each bridge, by place, as it was last
    readable. `shapes` holds what never changes of the registers of each function that Xen handles, as it was
    read when Xen handled it (`remap/vpci/shape.py`). `altered` holds the functions that have other registers
    now. `conventional` holds the places of bridges to conventional PCI, as they were last readable.
    `outside_window` holds by place the BARs that decoded where vPCI maps nothing. `left_guests` holds
    functions that left a guest, with the guest's number. `unproven` holds places of functions that left
    xen-pciback and of which nobody knows whether vPCI handles them again; in a service that has started
    again, of all without a driver (Xen 4.19 on). `held_regions` counts for each reserved region the clients
    that keep it in dom0. `holes` holds pages that pcipt unmapped and that Xen may map again for dom0 (only
    where the option dom0=pf-fixup may be on). `complaints` holds what Xen complained about on its console,
    and how often, by function. `faults` holds DMA that an IOMMU refused, by device, `fault_counts` how often
    by what lay there, `not_believed` how many lines about it were not used. `faulted` holds for each region
    that pcipt withdrew the places of dom0's devices whose DMA there was refused since: with
    reserved.restore_on_fault they need the region. `withdrawn_at` is when pcipt withdrew a region (UTC, RFC
    3339). `listed_devices` holds for each reserved region the devices that Xen listed last.
    """

    ledger: Ledger
    boot: BootSnapshot | None = None
    intents: Intents = attrs.Factory(Intents)
    trapped: Trapped = attrs.Factory(Trapped)
    given_up: set[str] = attrs.Factory(set)
    inherited: bool = False
    told_given_up: frozenset[str] = frozenset()
    removed: set[Sbdf] = attrs.Factory(set)
    unserved: set[Sbdf] = attrs.Factory(set)
    untyped: set[Sbdf] = attrs.Factory(set)
    served: set[Sbdf] = attrs.Factory(set)
    former: dict[str, Function] = attrs.Factory(dict)
    answered: dict[str, Function] = attrs.Factory(dict)
    vacated: dict[str, Sbdf] = attrs.Factory(dict)
    bridge_numbers: dict[str, tuple[int, int]] = attrs.Factory(dict)
    shapes: dict[Sbdf, str] = attrs.Factory(dict)
    altered: dict[Sbdf, Altered] = attrs.Factory(dict)
    conventional: set[str] = attrs.Factory(set)
    outside_window: dict[str, frozenset[int]] = attrs.Factory(dict)
    refused: set[str] = attrs.Factory(set)
    left_guests: dict[Sbdf, int] = attrs.Factory(dict)
    unproven: set[str] = attrs.Factory(set)
    held_regions: Counter[Frames] = attrs.Factory(Counter)
    holes: Holes = attrs.Factory(Holes)
    complaints: dict[Sbdf | None, dict[Complaint, int]] = attrs.Factory(dict)
    faults: dict[Sbdf, dict[FaultKey, DmaFault]] = attrs.Factory(dict)
    fault_counts: Counter[There] = attrs.Factory(Counter)
    not_believed: int = 0
    faulted: dict[Frames, set[str]] = attrs.Factory(dict)
    withdrawn_at: dict[Frames, str] = attrs.Factory(dict)
    listed_devices: dict[Frames, frozenset[Sbdf]] = attrs.Factory(dict)

    @property
    def mapped(self) -> MappedPages:
        """Return the pages that are mapped into dom0 for BARs, by pcipt or by vPCI; a part of the ledger."""
        return self.ledger.mapped

    @property
    def without_vpci(self) -> set[str]:
        """The places of functions that dom0 has without vPCI."""
        return self.given_up | self.ledger.given_up

    def forget_shape(self, sbdf: Sbdf) -> None:
        """Delete the noted shape of a function, and the note of how its registers have changed."""
        self.shapes.pop(sbdf, None)
        self.altered.pop(sbdf, None)

    def note_former(self, place: str, function: Function) -> None:
        """Set `former` of a place to the function that leaves it, as this function was when it answered last.

        If the sizes of its BARs are not known, because its removal cut the last reading short, an earlier
        function of the place stays in `former`.
        """
        last = self.answered.get(place, function)
        sizes = [bar.size for bar in last.bars if bar.kind is not BarKind.IO]
        if place not in self.former or (last.answers and all(sizes)):
            self.former[place] = last

    def copy(self) -> "Memory":
        """Return a memory for a dry run.

        The ledger, `trapped`, `given_up`, `vacated`, `outside_window`, `unproven`, `holes`, `complaints`,
        `faulted` and `listed_devices` are copied: plans change them. The other fields are shared with this
        memory.
        """
        return attrs.evolve(
            self,
            ledger=self.ledger.copy(),
            trapped=self.trapped.copy(),
            given_up=set(self.given_up),
            vacated=dict(self.vacated),
            outside_window=dict(self.outside_window),
            unproven=set(self.unproven),
            holes=self.holes.copy(),
            complaints=dict(self.complaints),
            faulted={region: set(places) for region, places in self.faulted.items()},
            listed_devices=dict(self.listed_devices),
        )
