"""What Xen makes of a machine's IOMMU tables: the answer, the rules that hold, and what was not given."""

import enum

from pcipt import values as attrs
from pcipt.firmware.acceptance.amd_state import AmdState
from pcipt.firmware.acceptance.reading import Said
from pcipt.firmware.acceptance.rules import Ending
from pcipt.firmware.acceptance.vtd_state import VtdState
from pcipt.pci.requester import Vendor


class Answer(enum.Enum):
    """Whether Xen does something. UNKNOWN: what it depends on was not given."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@attrs.frozen
class Acceptance:
    """What one version of Xen makes of the tables.

    `vendor` is None if there is neither a DMAR nor an IVRS; both answers are then NO. `iommu` is NO if Xen
    refuses the table, hangs or panics. `interrupts` says whether Xen remaps interrupts, as far as tables
    decide it: the IOMMU's registers may still say no. `said` has the rules that hold, in the order in which
    Xen meets them. `unknown` names in words what was not given and could change an answer. `state` is what
    Xen then has for each function; None if `iommu` is NO.
    """

    vendor: Vendor | None
    iommu: Answer
    interrupts: Answer
    said: tuple[Said, ...] = ()
    unknown: tuple[str, ...] = ()
    state: VtdState | AmdState | None = None

    @property
    def end(self) -> Said | None:
        """The rule for which Xen has no IOMMU; None if none is certain."""
        ending = (each for each in self.said if each.rule.ending is not Ending.NO_INTERRUPTS)
        return next((each for each in ending if each.certain), None)
