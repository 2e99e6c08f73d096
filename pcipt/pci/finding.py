"""Define a finding: a fact about a machine that its administrator should know."""

from pcipt import values as attrs
from pcipt.pci.notation.next_steps import next_step

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

    def to_json(self, sbdf: object = None) -> dict[str, str]:
        """Return the finding as a JSON object; `sbdf` is the function that it is about, or None.

        Shape: {"code", "text", "next"}; "next" is what can be done (`next_step`), empty for an unknown code.
        """
        step = next_step(self.code, None if sbdf is None else str(sbdf))
        return {"code": self.code, "text": self.text, "next": step}
