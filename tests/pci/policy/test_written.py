"""Lines of other tools that name nothing, or another device than the policy means."""

import pytest

from pcipt import values as attrs
from pcipt.pci import Ids, PciPath, Sbdf
from pcipt.pci.notation.hidden import Named, hidden_by
from pcipt.pci.notation.xl_guest import parse_device
from pcipt.pci.policy.entries import Entry
from pcipt.pci.policy.resolve import resolve
from pcipt.pci.policy.snippets import For
from pcipt.pci.policy.written import ABSENT, MALFORMED, STALE, Written, wrong_lines
from tests.pci.policy.identities import identity

PATHS = [PciPath(0, ((0, 0x1C, number), (0, 0, 0))) for number in range(3)]
WEB = Entry(identity(PATHS[0], serial=None), "web")
MAIL = Entry(identity(PATHS[1], serial=None), "mail")
ANY = Entry(identity(PATHS[1], serial=None))
DISK = identity(PATHS[2], ids=Ids(0x144D, 0xA808))
NICS = [identity(path, serial=None) for path in PATHS]
#  the NIC for web is at 04:00.0 now; what was at 03:00.0 is a disk
SHIFTED = {Sbdf(0, 4, 0, 0): NICS[0], Sbdf(0, 3, 0, 0): DISK}
SWAPPED = {Sbdf(0, 3, 0, 0): identity(PATHS[0], ids=Ids(0x144D, 0xA808))}
BOTH = {Sbdf(0, 3, 0, 0): NICS[0], Sbdf(0, 4, 0, 0): NICS[1], Sbdf(0, 5, 0, 0): DISK}
FAR = Entry(identity(PciPath(1, ((0, 1, 0), (0, 0, 0))), serial=None), "web")
WIDE = {**BOTH, Sbdf(1, 3, 0, 0): FAR.expected}


def kernel(value):
    ((_, items),) = hidden_by(f"xen-pciback.hide={value}").items()
    return Written(For.KERNEL, "xen-pciback.hide", items)


def modprobe(value):
    return attrs.evolve(kernel(value), tool=For.MODPROBE)


def qubes(value):
    ((_, items),) = hidden_by(f"rd.qubes.hide_pci={value}").items()
    return Written(For.QUBES, "rd.qubes.hide_pci", items)


def xl(guest, *texts):
    devices = [parse_device(text) for text in texts]
    items = tuple(Named(each.text, each.slot, each.options) for each in devices)
    return Written(For.XL, f"{guest}.cfg", items, guest)


K, Q, X = "xen-pciback.hide=", "rd.qubes.hide_pci=", "pci = [ {} ]"
M = "options xen-pciback hide="
CASES = [
    # policy, machine, line; (code, words, the right line) of each wrong item
    ([], BOTH, kernel("(03:00.0)"), []),
    ([], BOTH, xl("web", "03:00.0"), []),
    ([WEB], BOTH, kernel("(03:00.0)"), []),
    ([WEB], BOTH, kernel("(03:00.0)(05:00.0)"), []),  # more than the policy keeps is the user's choice
    ([WEB], BOTH, kernel("(03:*.*)"), []),
    ([WEB], BOTH, xl("web", "03:00.0", "05:00.0"), []),
    ([WEB], BOTH, xl("mail", "05:00.0"), []),  # a guest of which the policy says nothing
    ([ANY], BOTH, xl("mail", "05:00.0"), []),
    ([WEB, FAR], WIDE, qubes("03:00.0,05:00.0"), []),  # this tool cannot name what is in segment 1
    ([WEB, FAR], WIDE, kernel("(05:00.0)"), [(STALE, "not", f"{K}(0000:03:00.0)(0001:03:00.0)")]),
    ([WEB, FAR], WIDE, qubes("05:00.0"), [(STALE, "not", f"{Q}03:00.0")]),
    # the bus has shifted: the address is that of the disk
    ([WEB], SHIFTED, kernel("(0000:03:00.0)"), [(STALE, "144d:a808", f"{K}(0000:04:00.0)")]),
    ([WEB], SHIFTED, modprobe("(03:00.0)"), [(STALE, "does not keep", f"{M}(0000:04:00.0)")]),
    ([WEB], SHIFTED, qubes("03:00.0"), [(STALE, "does not keep", f"{Q}04:00.0")]),
    (
        [WEB], SHIFTED, xl("web", "03:00.0@5,permissive=1"),
        [(STALE, "0000:04:00.0", X.format('"0000:04:00.0@5,permissive=1"'))],
    ),
    ([WEB], SHIFTED, kernel("(03:00.*)"), [(STALE, "8086:1533", f"{K}(0000:04:00.0)")]),
    # the device is gone, and its address belongs to another
    ([WEB], {Sbdf(0, 3, 0, 0): DISK}, kernel("(03:00.0)"), [(STALE, "expected at 00_1c.0-00_00.0", "")]),
    # another device in its place
    ([WEB], SWAPPED, kernel("(03:00.0)"), [(STALE, "144d:a808 is there", "")]),
    # of another guest
    (
        [WEB, MAIL], BOTH, xl("web", "04:00.0", "03:00.0"),
        [(STALE, "keeps this function for guest mail", X.format('"03:00.0"'))],
    ),
    # absent
    ([WEB], BOTH, kernel("(09:00.0)(03:00.0)"), [(ABSENT, "hides nothing", f"{K}(03:00.0)")]),
    ([WEB], BOTH, kernel("(09:00.0)"), [(ABSENT, "no function is at this address", f"{K}(0000:03:00.0)")]),
    ([], BOTH, xl("web", "09:00.0"), [(ABSENT, "xl does not start the guest; delete the", "")]),
    ([], BOTH, qubes("09:00.0"), [(ABSENT, "stops the boot", "")]),
    # malformed
    ([WEB], BOTH, modprobe("03:00.0"), [(MALFORMED, "no device is hidden", f"{M}(0000:03:00.0)")]),
    ([WEB], BOTH, kernel("03:00.0"), [(MALFORMED, "no device is hidden", f"{K}(0000:03:00.0)")]),
    ([], BOTH, kernel("(03:00.0)x"), [(MALFORMED, "does not start", f"{K}(03:00.0)")]),
    ([WEB], BOTH, qubes("0000:03:00.0"), [(MALFORMED, "stops the boot", f"{Q}03:00.0")]),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "machine", "line", "expected"), CASES)
def test_a_line(entries, machine, line, expected):
    found = wrong_lines([line], resolve(entries, machine), machine)
    assert [(each.code, each.line) for each in found] == [(code, right) for code, _, right in expected]
    for each, (_, words, right) in zip(found, expected, strict=True):
        assert words in each.text
        assert each.text.startswith(f"{line.where} names ")
        assert each.text.endswith(
            f"the right line is {right}" if right else ("delete the address from the line")
        )


def test_the_right_line_has_nothing_wrong():
    for entries, machine, line, expected in CASES:
        seen = resolve(entries, machine)
        if line.tool is For.KERNEL and expected and expected[0][2]:
            right = kernel(expected[0][2].partition("=")[2])
            assert wrong_lines([right], seen, machine) == ()


def test_a_file_that_cannot_be_read():
    (found,) = wrong_lines([Written(For.XL, "a.cfg", fault="a.cfg: line 3: expected = or +=")], (), BOTH)
    assert (found.code, found.line) == (MALFORMED, "")
    assert (
        found.text
        == "a.cfg: line 3: expected = or +=: xl refuses the whole file and does not start the guest"
    )
