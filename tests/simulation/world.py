"""The machine of a simulation: that of the laws, whose kernel speaks to the daemon's own sources."""

from pcipt.pci.write import ConfigWrite
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN, VPCI_SURVIVES_FAILURE
from tests.engine.test_laws import Telling
from tests.engine.test_laws import pages_of as pages_of_runs
from tests.engine.test_remap_machine import REGIONS
from tests.simulation.kernel import Netlink, Trace, uevent
from tests.xen.truth import mapped_pages, pages_of_region

WORDS = {"give": "bind", "take back": "unbind"}  # what the kernel says of an event, besides add and remove


class Machine(Telling):
    """`number` is the boot; `clock` tells the time of a line of the trace.

    `sent`, `forged`, `written` and `lost` count since the daemon began.
    """

    def __init__(self, number, clock, **made):
        self.netlink = self.trace = None
        self.sequence = 0
        self.word = "change"
        self._clock = clock
        super().__init__(**made)
        self.linux.boot_id = f"boot {number}"
        self.begin()

    def start(self):
        """The simulation starts the daemon."""

    def begin(self):
        """Make the sources of a daemon that starts: it hears nothing of what was before."""
        self.netlink, self.trace = Netlink(), Trace()
        self.linux.dead = False
        self.xen.reconnect()
        self.sent = self.forged = self.written = self.lost = self.overruns = 0

    def end(self):
        """The daemon is gone: the kernel has nobody to tell."""
        self.netlink = self.trace = None

    def happen(self, event):
        self.word = WORDS.get(event[0], "change")
        super().happen(event)
        self.word = "change"

    def tell(self, plugged=(), *, written=(), removed=(), doubt=False):  # noqa: ARG002 - World's
        for sbdf in plugged:
            fresh = self.engine is None or sbdf not in self.engine.machine.functions
            self.announce("remove" if sbdf in removed else "add" if fresh else self.word, sbdf)

    def announce(self, action, sbdf):
        """Let the kernel send a message."""
        self.sequence += 1
        if self.netlink is not None:
            self.sent += 1
            self.netlink.send(uevent(action, sbdf, self.sequence))

    def change(self, sbdf, offset, size, value):
        self.xen.write_config(sbdf, offset, size, value)
        if self.trace is not None:
            self.written += 1
            self.trace.write(ConfigWrite(sbdf, offset, size, value), self._clock.now)

    def forge(self, data, **sender):
        """Let somebody who is not the kernel send a message."""
        if self.netlink is not None:
            self.forged += 1
            self.netlink.send(data, **sender)

    def lose_messages(self):
        if self.netlink is not None:
            self.netlink.overrun()
            self.overruns += 1

    def lose_writes(self):
        if self.trace is not None:
            lost = self.trace.lose()
            self.written -= lost
            self.lost += lost

    def keeps_silent(self):
        """Tell whether a guest has a function that does not answer, where vPCI is built anew for dom0: vPCI
        sees no BARs then, and nobody notices (`RemapMachine.take_back`).
        """
        anew = VPCI_BUILT_AT_ASSIGN.of(self.xen.identity.version)
        return anew and any(self.hardware.slot(sbdf) is None for sbdf in self.given)

    def list_differs(self):
        """Give the functions that only one of Linux and Xen has."""
        return sorted(set(self.linux.raws) ^ set(self.xen.devices))

    def silent(self):
        """Give the pages that the ledger has of functions that Linux has and that no bus number leads to:
        nobody can read what their BARs are now. A finding tells of each such function.
        """
        ledger = self.engine.ledger
        lost = [sbdf for sbdf in self.linux.raws if self.hardware.slot(sbdf) is None]
        return pages_of_runs(run for run in ledger.mapped if run.sbdf in lost)

    def unreached(self):
        """Give the pages of BARs of functions that have moved: Linux does not have them where they are, so
        a service that starts then cannot read them. A finding tells of each.
        """
        return self.pages_of_bars(sbdf for sbdf in self.hardware.functions() if sbdf not in self.linux.raws)

    def given_up_unseen(self):
        """Give the pages of BARs of functions that vPCI gave up unseen: when it unmaps pages that are not
        mapped (Xen 4.17 and 4.18), the line on Xen's console has the pages and not the function.
        """
        if VPCI_SURVIVES_FAILURE.of(self.xen.identity.version):
            return set()
        alone = [sbdf for sbdf in self.hardware.functions() if not self.xen.vpci.traps(sbdf)]
        known = {self.engine.views.state.address_of(place) for place in self.engine.memory.without_vpci}
        return self.pages_of_bars(sbdf for sbdf in alone if sbdf not in known)

    def told(self, named):
        """Give the pages that the ledger has of functions that a finding is about."""
        return pages_of_runs(run for run in self.engine.ledger.mapped if str(run.sbdf) in named)

    def falsely_held(self, reset):
        """Give the pages that the ledger takes for mapped without a doubt, and that are not.

        Of the functions `reset`, a reset has cleared BARs, as a finding says. vPCI takes them for mapped
        or does not, and nothing shows it: the ledger takes them for mapped, so that the pages are unmapped
        when the function leaves.
        """
        if self.xen.p2m is None:
            return []
        lost = pages_of_runs(run for run in self.engine.ledger.mapped if str(run.sbdf) in reset)
        unknown = self.doubtful() | self.silent() | lost | self.given_up_unseen()
        sure = pages_of_runs(self.engine.ledger.mapped) - unknown
        regions = {page for region in REGIONS for page in pages_of_region(region)}
        return sorted(sure - mapped_pages(self.xen) - regions)
