"""Reads Xen's complaints from its console, and returns them as findings of the functions concerned.

The console is read when the machine is compared with Xen, when Xen is asked about owners, after a round that
has changed something in Xen, and slowly by a timer; never by a dry run. A lasting complaint (`LASTING`) is
kept until Linux drops the function. Any other complaint (a failed map) is kept until everything is compared
again.
"""

from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from errno import EBADF, ENODEV, EOPNOTSUPP, EPERM

import attrs

from pcipt.engine.memory import Memory
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Finding, Machine, Sbdf
from pcipt.pci.structures import MSIX
from pcipt.remap.bar_index import BarIndex
from pcipt.xen.boot_words import BootWords, parse_boot_words
from pcipt.xen.complaint_texts import finding_of_complaint
from pcipt.xen.complaints import (
    LASTING,
    OF_BARS,
    Code,
    Complaint,
    complaint_from,
    parse_complaints,
    words_of,
)
from pcipt.xen.dma_faults import Hearing, hearing_of
from pcipt.xen.interface import Dom0Kind, Hypervisor, command_line_of
from pcipt.xen.releases import (
    FAULTY_CAPABILITY_HIDDEN,
    HIDDEN_MSIX_LOCKED,
    VPCI_BUILT_AT_ASSIGN,
    VPCI_SURVIVES_FAILURE,
)

WITHOUT_VPCI = frozenset({Code.NO_SETUP, Code.NOT_HIDDEN})
PASSING = frozenset({Code.ASSIGN, Code.INTERRUPT})  # over when the service starts
KEPT = 256  # different complaints; a device may cause any number of them
DRIFT = "bar-drift"  # the finding that hardware and Linux have different addresses in a BAR
_UNREAD = Finding(
    "console-unread",
    "Xen's console cannot be read. Only the console tells which capabilities Xen could not set up and hides "
    "from dom0: dom0 cannot tell a device with hidden MSI-X from a device without MSI-X",
)


@attrs.frozen
class Heard:
    """What one reading of the console has brought.

    `text` is what may tell of refused DMA. `about` are the functions with new complaints. `not_built` are the
    functions that vPCI does not handle, by new complaints, since they returned to dom0. `may_not_be_built`
    are those of the first reading: nobody knows whether that is over.
    """

    text: str = ""
    about: AbstractSet[Sbdf] = frozenset()
    not_built: AbstractSet[Sbdf] = frozenset()
    may_not_be_built: AbstractSet[Sbdf] = frozenset()


class Complaints:
    """The complaints of Xen, in `memory.complaints`: by function, how often Xen printed each complaint.

    The key None has the complaints that name neither a function nor a page of a BAR. `boot_words` is what Xen
    said of its IOMMU at boot, by the first reading; None before that. `hearing` is what its console may be
    believed, by the first reading; None before that. `readable` is False if the last reading failed.
    """

    def __init__(self, xen: Hypervisor, memory: Memory) -> None:
        self._xen = xen
        self._held = memory.complaints
        self._begun = False
        self._kept: frozenset[str] = frozenset()
        self.boot_words: BootWords | None = None
        self.hearing: Hearing | None = None
        self.readable = True
        version = xen.identity.version
        hides = FAULTY_CAPABILITY_HIDDEN.known_of(version) is not False
        self._may_hide = hides and xen.identity.dom0 is Dom0Kind.PVH
        self._hidden_is_trapped = FAULTY_CAPABILITY_HIDDEN.of(version) and not HIDDEN_MSIX_LOCKED.of(version)

    def read(
        self, machine: Machine, bars: BarIndex, *, over: Collection[Code], traps: Callable[[Sbdf], bool]
    ) -> Heard:
        """Read the console, delete the complaints that are over, add the new ones; return what was read.

        A former complaint is over if Linux does not have its function. It is also over if its code is in
        `over` and the complaint does not last.
        `traps` returns True for a function that vPCI handles, as far as is known. A complaint that says that
        vPCI has forgotten such a function lasts: nothing shows whether that is over. At the first reading,
        other PASSING complaints are left out, nothing is `not_built`, and the returned text is empty: what it
        tells of moments is over. If the console cannot be read, nothing changes, and the result is empty.
        """
        try:
            text = self._xen.console()
        except (HypervisorError, UnsupportedError):
            self.boot_words = self.boot_words or BootWords()
            self.readable = False
            return Heard()
        self.readable = True
        self.hearing = self.hearing or hearing_of(command_line_of(self._xen), text)
        self.boot_words = self.boot_words or parse_boot_words(text)
        for function, said in list(self._held.items()):
            gone = function is not None and function not in machine.functions
            kept = {
                each: n
                for each, n in said.items()
                if each.code in LASTING or each.code not in over or self._is_doubt(each, traps)
            }
            kept = {} if gone else kept
            self._replace(function, kept)
        said_now = [
            each
            for each in parse_complaints(text)
            if self._begun or each.code not in PASSING or self._is_doubt(each, traps)
        ]
        begun, self._begun = self._begun, True
        about = set[Sbdf]()
        for complaint in said_now:
            concerned = _about(complaint, machine, bars)
            about |= {function for function in concerned if function is not None}
            for function in concerned:
                self._add(function, complaint)
        failed = {each.function for each in said_now if self._not_built(each)}
        not_built = frozenset(function for function in failed if function is not None)
        return Heard(text, about, not_built) if begun else Heard("", about, may_not_be_built=not_built)

    def of(self, sbdf: Sbdf | None, told: Iterable[Finding] = ()) -> Iterable[Finding]:
        """Yield the findings about a function; for None, those about no function.

        One of these is that the console cannot be read, where only the console tells what Xen hides.
        `told` are the findings of the function's registers. A dropped write to a BAR is a finding only while
        `told` says that the BAR has another address than in Linux; a lost BAR has a finding of its own. If
        vPCI does not take a function because of its header type, there is no finding: pcipt maps the BARs
        (`desired_of`). Neither is there one if it has none because nothing answered when it returned to dom0:
        `ledger.given_up` has the function then.
        """
        if sbdf is None and not self.readable and self._may_hide:
            yield _UNREAD
        drifted = any(finding.code == DRIFT for finding in told)
        for complaint, times in self._held.get(sbdf, {}).items():
            not_taken = complaint.code is Code.NO_VPCI or self._not_built(complaint)
            by_header = not_taken and complaint.rc == EOPNOTSUPP
            if not by_header and (complaint.code is not Code.DROPPED or drifted):
                yield finding_of_complaint(complaint, times, self._xen.identity.version)

    @property
    def untrapped(self) -> set[Sbdf]:
        """The functions that vPCI does not handle while dom0 has them, by what Xen said of them.

        They are those that could not be set up, except where that is so for a phantom function only (EPERM);
        on releases that do not hide a faulty MSI-X structure, those that have one; and on releases where vPCI
        gives a function up after a failed map or unmap, those on whose pages that failed; not if the pages
        belong to several functions.
        Source: Xen drivers/passthrough/pci.c (setup_one_hwdom_device), drivers/vpci/header.c
                (vpci_process_pending), drivers/vpci/vpci.c (vpci_assign_device), msix.c (init_msix),
                drivers/passthrough/amd/pci_amd_iommu.c (amd_iommu_add_device: EPERM).
        """
        version = self._xen.identity.version
        gives_up, hides = not VPCI_SURVIVES_FAILURE.of(version), FAULTY_CAPABILITY_HIDDEN.of(version)
        holders: dict[Complaint, list[Sbdf]] = {}
        for function, said in self._held.items():
            if function is None:
                continue
            for complaint in said:
                failed = gives_up and complaint.code is Code.MAP and complaint.pages is not None
                faulty = not hides and complaint.code is Code.MSIX and complaint.at is None
                phantom = complaint.code is Code.NO_SETUP and complaint.rc == EPERM
                if failed or faulty or (complaint.code in WITHOUT_VPCI and not phantom):
                    holders.setdefault(complaint, []).append(function)
        return {functions[0] for functions in holders.values() if len(functions) == 1}

    def has_lost(self, sbdf: Sbdf) -> bool:
        """Return True if a function in `untrapped` is there because vPCI gave it up after a failed map."""
        return any(each.code is Code.MAP for each in self._held.get(sbdf, ()))

    @property
    def unserved(self) -> set[Sbdf]:
        """The functions of which Xen said at boot that no IOMMU unit serves them: each later add fails.

        Source: Xen drivers/passthrough/vtd/iommu.c (domain_context_mapping), amd/pci_amd_iommu.c
                (amd_iommu_add_device): ENODEV.
        """
        return {
            function
            for function, said in self._held.items()
            if function and any((each.code, each.rc) == (Code.NO_SETUP, ENODEV) for each in said)
        }

    def remember(self, kept: set[str], functions: Collection[Sbdf]) -> bool:
        """Keep lasting complaints about these functions that the console does not hold any more.

        `kept` are the words (`words_of`) of those that the ledger has; those of new ones are added. Return
        True if `kept` has changed since the last call: it must be on disk.
        """
        for complaint in filter(None, map(complaint_from, kept)):
            said = self._held.get(complaint.function, {})
            same = any(attrs.evolve(each, at=complaint.at) == complaint for each in said)
            if complaint.function in functions and not same:
                self._add(complaint.function, complaint)
        held = (said for function, said in self._held.items() if function in functions)
        told = {words_of(each) for said in held for each in said if each.code in LASTING}
        changed = not (kept >= told and kept >= self._kept)  # some are new, or their function has left
        kept |= told
        self._kept = frozenset(kept)
        return changed

    @property
    def hidden_msix(self) -> set[Sbdf]:
        """The functions of which Xen has hidden the MSI-X structure from dom0 and may still trap its pages.

        Source: Xen drivers/vpci/vpci.c (vpci_init_capabilities), msix.c (init_msix, before cleanup_msix).
        """
        held = self._held if self._hidden_is_trapped else {}
        return {
            function
            for function, said in held.items()
            for each in said
            if function and (each.code, each.kind, each.capability) == (Code.HIDDEN, "legacy", MSIX)
        }

    def _not_built(self, complaint: Complaint) -> bool:
        """Return True if a complaint says that a function returned to dom0 and vPCI could not be set up.

        The function is dom0's then, unless a later call has changed that. If the IOMMU refused the return,
        vPCI has forgotten the function, too.
        Source: Xen drivers/passthrough/pci.c (deassign_device).
        """
        failed = complaint.code is Code.ASSIGN and complaint.kind == "deassign"
        return failed and VPCI_BUILT_AT_ASSIGN.of(self._xen.identity.version)

    def _is_doubt(self, complaint: Complaint, traps: Callable[[Sbdf], bool]) -> bool:
        """Return True if a complaint says that vPCI has forgotten a function that it handled (`traps`).

        Xen does that before it gives a function away or takes it back, and does not undo it if that fails.
        It does not do it to a broken function (EBADF).
        Source: Xen drivers/passthrough/pci.c (assign_device, deassign_device), 4.19.0 to 4.22.0.
        """
        function, refused = complaint.function, complaint.kind == "assign" and complaint.rc == EBADF
        if complaint.code is not Code.ASSIGN or function is None or refused:
            return False
        return VPCI_BUILT_AT_ASSIGN.of(self._xen.identity.version) and traps(function)

    def _add(self, function: Sbdf | None, complaint: Complaint) -> None:
        """Count a complaint. It replaces a former complaint that differs from it only in `at`."""
        said = self._held.setdefault(function, {})
        same = next((each for each in said if attrs.evolve(each, at=complaint.at) == complaint), None)
        times = said.pop(same) if same is not None else 0
        if times or sum(map(len, self._held.values())) < KEPT:
            said[complaint] = times + 1

    def _replace(self, function: Sbdf | None, kept: dict[Complaint, int]) -> None:
        """Replace the complaints about a function."""
        if kept:
            self._held[function] = kept
        else:
            del self._held[function]


def forget_bars(memory: Memory, functions: Iterable[Sbdf], codes: Collection[Code] = OF_BARS) -> None:
    """Delete the complaints about BARs with these codes: vPCI has deleted its record of the functions, or
    pcipt has done what vPCI refused.
    """
    for function in functions:
        if said := memory.complaints.pop(function, None):
            kept = {each: n for each, n in said.items() if each.code not in codes}
            memory.complaints.update({function: kept} if kept else {})


def _about(complaint: Complaint, machine: Machine, bars: BarIndex) -> list[Sbdf | None]:
    """Return the functions that a complaint is about: the one that it names, or those with BARs on its pages.

    For a function that Linux does not have, the result depends on the complaint: a lasting complaint is about
    this function, because Linux may be about to add it; any other complaint is about no function.
    """
    if complaint.function is not None:
        told = complaint.function in machine.functions or complaint.code in LASTING
        return [complaint.function] if told else [None]
    over = bars.over(complaint.pages) if complaint.pages is not None else []
    return list(dict.fromkeys(bar.sbdf for bar in over)) or [None]
