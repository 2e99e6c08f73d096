"""A finding: something about a machine that its administrator should know."""

import attrs

# Findings that describe a machine as it was built; nothing is wrong and nothing can be mended.
NOTES = frozenset(
    {
        "enhanced-allocation", "segment-not-in-xen",
        "region-base-zero", "region-dropped", "region-large", "region-shared", "region-unaligned",
    }
)  # fmt: skip


@attrs.frozen
class Finding:
    """`code` is a stable word for programs; `text` says what is wrong, why it matters and what to do."""

    code: str
    text: str

    @property
    def is_note(self) -> bool:
        return self.code in NOTES
