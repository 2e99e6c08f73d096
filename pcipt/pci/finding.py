"""Define a finding: a fact about a machine that its administrator should know."""

import attrs

# Codes of findings that describe how a machine is built: nothing is wrong, nothing can be repaired.
NOTES = frozenset(
    {
        "dmar-io-apic", "dmar-no-interrupt-remapping", "enhanced-allocation", "segment-not-in-xen",
        "io-bar-unassigned", "vf-bar-unassigned",
        "region-added", "region-base-zero", "region-dropped", "region-large", "region-shared",
        "region-unaligned",
    }
)  # fmt: skip


@attrs.frozen
class Finding:
    """A fact about a machine that its administrator should know.

    `code` is a stable word for programs. `text` tells people what is wrong, why it matters and what to do.
    """

    code: str
    text: str

    @property
    def is_note(self) -> bool:
        """Return True if the finding only describes how the machine is built (its code is in `NOTES`), so
        that nothing is to be repaired.
        """
        return self.code in NOTES
