"""What cannot be derived from the present state of hardware, Linux and Xen: all of it, in one value.

field             written by                          dropped                              survives a restart
ledger            performer, reconciliation           at a new boot                        yes: ledger,
mappings boot              first reconciliation of a boot      at a new boot                        yes: boot
intents           watcher, from configuration writes  when hardware has the address        no
removed           machine state, when Linux drops it  when Xen does not list it            no
vacated           machine state, when Linux drops it  when a plan was made without it      no
bridge_numbers    machine state, at each reading      when the bridge leaves               no
outside_window    reconciliation                      when no BAR is outside any more      no
left_guests       views, when an owner changed        when the guest keeps nothing of it   no
held_regions      control socket (a reclaim)          when the client disconnects          no
"""

from collections import Counter

import attrs

from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Frames, Sbdf
from pcipt.remap.ignored import Intents
from pcipt.remap.ledger import Ledger
from pcipt.remap.mapped_pages import MappedPages


@attrs.define
class Memory:
    """`ledger` holds the actions of pcipt and the pages that pcipt and vPCI mapped (`ledger.mapped`).

    `boot` holds the functions and bridges as they were at the first reading of this boot. `intents` holds BAR
    writes that hardware ignored. `removed` holds addresses that Linux had and dropped: only these may be
    removed from Xen. `vacated` holds places whose function Linux dropped and about which no plan was made
    yet, with their address. `bridge_numbers` holds the last readable secondary and subordinate bus of each
    bridge, by place. `outside_window` holds for a place the BARs that decoded where vPCI maps nothing.
    `left_guests` holds functions that left a guest, with the guest's number. `held_regions` counts the
    clients that keep a reserved region in dom0.
    """

    ledger: Ledger
    boot: BootSnapshot | None = None
    intents: Intents = attrs.Factory(Intents)
    removed: set[Sbdf] = attrs.Factory(set)
    vacated: dict[str, Sbdf] = attrs.Factory(dict)
    bridge_numbers: dict[str, tuple[int, int]] = attrs.Factory(dict)
    outside_window: dict[str, frozenset[int]] = attrs.Factory(dict)
    left_guests: dict[Sbdf, int] = attrs.Factory(dict)
    held_regions: Counter[Frames] = attrs.Factory(Counter)

    @property
    def mapped(self) -> MappedPages:
        return self.ledger.mapped

    def copy(self) -> "Memory":
        """Return a copy for a dry run. It shares the fields that only readings write."""
        return attrs.evolve(
            self,
            ledger=self.ledger.copy(),
            vacated=dict(self.vacated),
            outside_window=dict(self.outside_window),
        )
