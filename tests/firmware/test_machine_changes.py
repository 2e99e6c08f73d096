"""What differs between two states of a machine; the machines are changed as a workshop does it."""

import attrs
import pytest

from pcipt.firmware.machine_changes import ChangeKind, Seen, changes_between
from pcipt.pci import Ids, PciPath, Sbdf
from pcipt.pci.identity import NO_SERIAL
from tests.initramfs.test_keep import identities
from tests.initramfs.topologies import Enumeration, a_source, change, enumerated
from tests.pci.policy.identities import IDS, NIC, identity

SECOND = PciPath(0, ((0, 0x1D, 0), (0, 0, 0)))
OTHER = Sbdf(0, 4, 0, 0)


def seen(path=None, serial=1, ids=IDS, root="\\_SB_.PCI0", **more):
    """Make a function; small numbers alone would be those of a masked recording."""
    whole = serial and 0x001B21 << 40 | serial
    return Seen(identity(path or identity().path, root, ids, whole), **more)


def told(before, after):
    return [(each.kind.value, each.before, each.after) for each in changes_between(before, after)]


ONE = {NIC: seen()}
SMALL = seen(PciPath(0, ((0, 0x1E, 0), (0, 0, 0))))
SMALL = attrs.evolve(SMALL, identity=attrs.evolve(SMALL.identity, serial=1))  # a careless vendor's
CASES = (
    (
        "a swap beside a card with a small number",
        {NIC: seen(), OTHER: seen(SECOND, 2), Sbdf(0, 5, 0, 0): SMALL},
        {NIC: seen(serial=2), OTHER: seen(SECOND, 1), Sbdf(0, 5, 0, 0): SMALL},
        [("moved", OTHER, NIC), ("moved", NIC, OTHER)],
    ),
    ("nothing", ONE, ONE, []),
    ("new", {}, ONE, [("new", None, NIC)]),
    ("gone", ONE, {}, [("gone", NIC, None)]),
    ("another bus", ONE, {OTHER: seen()}, [("renumbered", NIC, OTHER)]),
    ("another slot", ONE, {OTHER: seen(SECOND)}, [("moved", NIC, OTHER)]),
    ("another card", ONE, {NIC: seen(serial=2)}, [("replaced", NIC, NIC)]),
    ("another model", ONE, {NIC: seen(ids=Ids(1, 2))}, [("replaced", NIC, NIC)]),
    (
        "a swap of numbered cards",
        {NIC: seen(), OTHER: seen(SECOND, 2)},
        {NIC: seen(serial=2), OTHER: seen(SECOND, 1)},
        [("moved", OTHER, NIC), ("moved", NIC, OTHER)],
    ),
    (
        "equal cards without numbers are not told apart",
        {NIC: seen(serial=NO_SERIAL), OTHER: seen(SECOND, NO_SERIAL)},
        {NIC: seen(serial=NO_SERIAL), OTHER: seen(SECOND, NO_SERIAL)},
        [],
    ),
    ("a number that was not read is no difference", ONE, {NIC: seen(serial=None)}, []),
    ("a host bridge without a name is no difference", ONE, {NIC: seen(root=None)}, []),
    ("a BAR", {NIC: seen(bars={0: 4096})}, {NIC: seen(bars={0: 8192})}, [("bars", NIC, NIC)]),
    ("BARs that were not read", {NIC: seen(bars={0: 4096})}, {NIC: seen(bars=None)}, []),
    (
        "a region",
        {NIC: seen(regions=frozenset())},
        {NIC: seen(regions=frozenset({(0x1000, 0x1FFF)}))},
        [("regions", NIC, NIC)],
    ),
    (
        "a group at other addresses is the same",
        {NIC: seen(group=frozenset({NIC}))},
        {OTHER: seen(group=frozenset({OTHER}))},
        [("renumbered", NIC, OTHER)],
    ),
    (
        "a larger group",
        {NIC: seen(group=frozenset({NIC}))},
        {NIC: seen(group=frozenset({NIC, OTHER})), OTHER: seen(SECOND, 2, group=frozenset({NIC, OTHER}))},
        [("new", None, OTHER), ("group", NIC, NIC)],
    ),
)


@pytest.mark.parametrize(
    ("before", "after", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_each_kind(before, after, expected):
    assert told(before, after) == expected


def test_texts_tell_what_and_where():
    (moved,) = changes_between(ONE, {OTHER: seen(SECOND)})
    assert "from 00_1c.0-00_00.0 to 00_1d.0-00_00.0" in moved.text
    (replaced,) = changes_between(ONE, {NIC: seen(serial=2)})
    assert "another serial number" in replaced.text
    (bars,) = changes_between({NIC: seen(bars={0: 4096})}, {NIC: seen(bars={0: 8192, 2: 64})})
    assert bars.text == "BAR 0 8K, was 4K; BAR 2 64, was none"


def test_random_changes_are_what_they_were():
    """Every numbered card that was moved, added or taken out is told so, and nothing else is said of it."""
    kinds = set()
    for seed in range(300):
        source = a_source(seed)
        board, before = enumerated(source)
        change(source, board)
        try:
            after = Enumeration(board)
        except ValueError:
            continue
        states = [{sbdf: Seen(one) for sbdf, one in identities(each).items()} for each in (before, after)]
        found = {}
        for each in changes_between(*states):
            kinds.add(each.kind)
            for side, sbdf in (("before", each.before), ("after", each.after)):
                assert (side, sbdf) not in found or sbdf is None, seed
                found[side, sbdf] = each
        for sbdf, placed in before.placed.items():
            if placed.card.serial is None:
                continue
            now = [
                at
                for at, each in after.placed.items()
                if (each.card, each.function) == (placed.card, placed.function)
            ]
            said = found.get(("before", sbdf))
            if not now:
                assert said.kind in (ChangeKind.GONE, ChangeKind.REPLACED), seed
            elif after.placed[now[0]].position == placed.position:
                assert said is None or (said.kind, said.after) == (ChangeKind.RENUMBERED, now[0]), seed
            else:
                assert (said.kind, said.after) == (ChangeKind.MOVED, now[0]), seed
    assert kinds == {
        ChangeKind.NEW, ChangeKind.GONE, ChangeKind.MOVED, ChangeKind.RENUMBERED, ChangeKind.REPLACED,
    }  # fmt: skip


def test_the_same_machine_never_differs():
    for seed in range(50):
        _, numbered = enumerated(a_source(seed))
        state = {sbdf: Seen(one) for sbdf, one in identities(numbered).items()}
        again = {sbdf: attrs.evolve(each) for sbdf, each in state.items()}
        assert changes_between(state, again) == ()
