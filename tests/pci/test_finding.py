import pytest

from pcipt.pci import Finding
from pcipt.pci.finding import NOTES


@pytest.mark.parametrize(
    ("code", "note"),
    [("segment-not-in-xen", True), ("enhanced-allocation", True), ("bar-drift", False), ("no-answer", False)],
)
def test_a_note_describes_a_machine_as_it_was_built(code, note):
    assert Finding(code, "why").is_note is note
    assert (code in NOTES) is note
