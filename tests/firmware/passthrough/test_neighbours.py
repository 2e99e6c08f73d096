import attrs
import pytest

from pcipt.firmware.passthrough import neighbours
from pcipt.firmware.passthrough.groups import groups_of
from pcipt.pci import parse_sbdf
from pcipt.pci.raw import LinuxFacts
from tests.firmware.passthrough_cases import (
    DOWNSTREAM,
    ENDPOINT,
    ROOT_PORT,
    TO_PCI,
    UPSTREAM,
    conventional,
    evidence_of,
    express,
    said_by,
    text_of,
)
from tests.machines import bridge, function


class Rules:
    """The rules about neighbours, each with the groups of the evidence that it gets."""

    def __getattr__(self, name):
        rule = getattr(neighbours, name)
        return lambda function, evidence: rule(groups_of(evidence), function, evidence)


rules = Rules()


def below(address, parent):
    return express(function(address, parent=parent), ENDPOINT)


def behind_bridge(*, pcie=True):
    """Two conventional functions behind a bridge, and one behind a further bridge there."""
    upper = bridge("00:1e.0", 3, 4)
    inner = bridge("03:02.0", 4, 4, parent="00:1e.0")
    return evidence_of(
        express(upper, TO_PCI) if pcie else conventional(upper),
        conventional(function("03:00.0", parent="00:1e.0")),
        conventional(function("03:01.0", parent="00:1e.0")),
        conventional(inner),
        conventional(function("04:00.0", parent="03:02.0")),
    )


@pytest.mark.parametrize("pcie", [True, False])  # PCIe-to-PCI, and the old kind without the capability
def test_functions_behind_a_conventional_bridge_share_a_requester_id(pcie):
    evidence = behind_bridge(pcie=pcie)
    assert said_by(rules.requester_ids, "03:00.0", evidence) == ({"requester-id-shared": "warn"}, [])
    text = text_of(rules.requester_ids, "04:00.0", evidence)
    assert "0000:00:1e.0" in text  # the highest one decides
    assert "0000:03:00.0, 0000:03:01.0" in text
    assert "0000:03:02.0" not in text  # a bridge is not passed through
    together = evidence.leaving([parse_sbdf(text) for text in ("03:00.0", "03:01.0", "04:00.0")])
    assert said_by(rules.requester_ids, "03:00.0", together) == ({}, [])


def test_one_alone_behind_a_conventional_bridge():
    evidence = evidence_of(
        express(bridge("00:1e.0", 3, 3), TO_PCI), conventional(function("03:00.0", parent="00:1e.0"))
    )
    assert said_by(rules.requester_ids, "03:00.0", evidence) == ({}, [])


def test_a_bridge_of_which_only_the_header_was_read():
    evidence = evidence_of(bridge("00:1e.0", 3, 3, conventional=True), function("03:00.0", parent="00:1e.0"))
    assert said_by(rules.requester_ids, "03:00.0", evidence) == ({}, [])
    assert said_by(rules.goes_along, "03:00.0", evidence) == ({}, [])  # nobody else is there
    two = evidence_of(
        bridge("00:1e.0", 3, 3, conventional=True),
        function("03:00.0", parent="00:1e.0"),
        function("03:01.0", parent="00:1e.0"),
    )
    assert "requester ids behind bridges" in said_by(rules.goes_along, "03:00.0", two)[1]


SPLIT = [
    # functions of the machine, those that leave together -> the codes for 03:00.0
    (("03:00.0",), (), []),
    (("03:00.0", "03:00.1"), (), ["device-split"]),
    (("03:00.0", "03:00.1"), ("03:00.0", "03:00.1"), []),
    (("03:00.0", "03:00.1", "03:00.2"), ("03:00.0", "03:00.1"), ["device-split"]),
    (("03:00.0", "03:01.0"), (), []),  # another device
]


@pytest.mark.parametrize(("present", "leaving", "codes"), SPLIT)
def test_functions_of_one_device(present, leaving, codes):
    evidence = evidence_of(*map(function, present)).leaving(map(parse_sbdf, leaving))
    assert list(said_by(rules.split_device, "03:00.0", evidence)[0]) == codes


ALONE = [
    # reset methods, ACS of the functions -> whether the device is one
    (("flr",), True, False),
    (("flr",), False, True),  # they reach each other
    (("bus",), True, True),  # a reset hits both
    ((), True, True),
    (None, True, True),  # it is not known, and the registers have no FLR
]


@pytest.mark.parametrize(("methods", "acs", "split"), ALONE)
def test_functions_that_keep_to_themselves_are_not_one_device(methods, acs, split):
    raws = [express(function(f"03:00.{number}", parent="00:1c.0"), ENDPOINT, acs=acs) for number in range(2)]
    evidence = evidence_of(
        express(bridge("00:1c.0", 3, 3), ROOT_PORT, acs=True),
        *raws,
        facts={raw.sbdf: LinuxFacts(reset_methods=methods) for raw in raws},
    )
    assert list(said_by(rules.split_device, "03:00.0", evidence)[0]) == ["device-split"] * split


@pytest.mark.parametrize("forwarding", [True, False])
def test_below_a_port_that_forwards_ari_there_is_one_device(forwarding):
    port = express(bridge("00:1c.0", 3, 3), ROOT_PORT, acs=True)
    data = bytearray(port.config)
    data[0x40 + 0x28] = forwarding << 5
    evidence = evidence_of(
        attrs.evolve(port, config=bytes(data)), below("03:00.0", "00:1c.0"), below("03:01.0", "00:1c.0")
    )
    said, _ = said_by(rules.split_device, "03:00.0", evidence)
    assert list(said) == (["device-split"] if forwarding else [])
    together = evidence.leaving(map(parse_sbdf, ("03:00.0", "03:01.0")))
    assert said_by(rules.split_device, "03:00.0", together)[0] == {}


def test_what_nobody_can_be_given_splits_no_device():
    evidence = evidence_of(function("00:1f.0", class_code=0x060100), function("00:1f.2"))
    assert said_by(rules.split_device, "00:1f.2", evidence) == ({}, [])


def test_virtual_functions_are_devices_of_their_own():
    evidence = evidence_of(function("03:00.0"), function("03:00.1", physfn="03:00.0"))
    assert said_by(rules.split_device, "03:00.1", evidence) == ({}, [])
    assert said_by(rules.split_device, "03:00.0", evidence) == ({}, [])


def root_ports(*, acs=False, device="1c"):
    second = "00:1c.1" if device == "1c" else "00:1d.0"
    return (
        express(bridge("00:1c.0", 3, 3), ROOT_PORT, acs=acs),
        express(bridge(second, 4, 4), ROOT_PORT, acs=acs),
        below("03:00.0", "00:1c.0"),
        below("04:00.0", second),
    )


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        (root_ports(), {"no-acs": "warn"}),
        (root_ports(acs=True), {}),
        (root_ports(device="1d"), {}),  # ports that are devices of their own
        (root_ports()[::2], {}),  # nobody behind the other port
    ],
)
def test_ports_without_acs(ports, expected):
    assert said_by(rules.acs, "03:00.0", evidence_of(*ports)) == (expected, [])


@pytest.mark.parametrize(("acs", "expected"), [(False, {"no-acs": "warn"}), (True, {})])
def test_ports_of_a_switch(acs, expected):
    evidence = evidence_of(
        express(bridge("00:1c.0", 2, 5), ROOT_PORT, acs=True),
        express(bridge("02:00.0", 3, 5, parent="00:1c.0"), UPSTREAM),
        express(bridge("03:00.0", 4, 4, parent="02:00.0"), DOWNSTREAM, acs=acs),
        express(bridge("03:01.0", 5, 5, parent="02:00.0"), DOWNSTREAM, acs=acs),
        below("04:00.0", "03:00.0"),
        below("05:00.0", "03:01.0"),
    )
    assert said_by(rules.acs, "04:00.0", evidence) == (expected, [])
    together = evidence.leaving([parse_sbdf("04:00.0"), parse_sbdf("05:00.0")])
    assert said_by(rules.acs, "04:00.0", together) == ({}, [])


def test_a_device_of_several_functions_needs_acs_of_its_own():
    port = express(bridge("00:1c.0", 3, 3), ROOT_PORT, acs=True)
    bare = [below(f"03:00.{number}", "00:1c.0") for number in range(2)]
    guarded = [express(raw, ENDPOINT, acs=True) for raw in bare]
    assert said_by(rules.acs, "03:00.0", evidence_of(port, *bare)) == ({"no-acs-functions": "warn"}, [])
    assert said_by(rules.acs, "03:00.0", evidence_of(port, *guarded)) == ({}, [])
    short = [cut_short(raw) for raw in bare]
    assert said_by(rules.acs, "03:00.0", evidence_of(port, *short)) == ({}, [])
    known = {raw.sbdf: LinuxFacts(reset_methods=("flr",)) for raw in short}
    assert said_by(rules.goes_along, "03:00.0", evidence_of(port, *short, facts=known)) == ({}, ["ACS"])


def cut_short(raw):
    """Keep only the first 256 bytes, as lspci -xxx does."""
    return attrs.evolve(raw, config=raw.config[:256])


def test_what_was_not_read_is_unknown():
    short = [cut_short(raw) for raw in root_ports()]
    assert said_by(rules.goes_along, "03:00.0", evidence_of(*short)) == ({}, ["ACS"])
    alone = evidence_of(bridge("00:1c.0", 3, 3), function("03:00.0", parent="00:1c.0"))
    assert said_by(rules.goes_along, "03:00.0", alone) == ({}, [])  # whatever ACS says, nobody else is there


def test_conventional_functions_have_no_acs():
    assert said_by(rules.acs, "03:00.0", behind_bridge()) == ({}, [])


def test_groups_of_linux_decide_where_there_are_some():
    """They know of devices that keep apart without ACS (quirks)."""
    evidence = evidence_of(
        *root_ports(),
        facts={
            parse_sbdf("00:1c.0"): LinuxFacts(iommu_group=1),
            parse_sbdf("00:1c.1"): LinuxFacts(iommu_group=2),
            parse_sbdf("03:00.0"): LinuxFacts(iommu_group=7),
            parse_sbdf("04:00.0"): LinuxFacts(iommu_group=8),
        },
    )
    assert said_by(rules.acs, "03:00.0", evidence) == ({}, [])
    same = evidence_of(
        *root_ports(),
        facts={
            parse_sbdf(text): LinuxFacts(iommu_group=7)
            for text in ("00:1c.0", "03:00.0", "04:00.0", "09:00.0")
        },
    )
    assert said_by(rules.acs, "03:00.0", same) == ({"no-acs": "warn"}, [])
    text = text_of(rules.acs, "03:00.0", same)
    assert "0000:04:00.0 can reach each other" in text


@pytest.mark.parametrize(("owner", "said"), [("guest 5", {"group-with-guest": "refuse"}), ("quarantine", {})])
def test_a_guest_has_what_the_iommu_cannot_distinguish(owner, said):
    evidence = attrs.evolve(behind_bridge(), owners={parse_sbdf("03:01.0"): owner})
    assert said_by(rules.other_guests, "03:00.0", evidence) == (said, [])
    together = evidence.leaving([parse_sbdf("03:00.0"), parse_sbdf("03:01.0")])
    assert said_by(rules.other_guests, "03:00.0", together) == ({}, [])


def test_a_guest_has_what_can_be_reached_around_the_iommu():
    evidence = evidence_of(conventional(function("00:03.0")), conventional(function("00:03.1")))
    evidence = attrs.evolve(evidence, owners={parse_sbdf("00:03.1"): "guest 5"})
    assert said_by(rules.other_guests, "00:03.0", evidence) == ({"group-with-guest": "warn"}, [])
    text = text_of(rules.other_guests, "00:03.0", evidence)
    assert "0000:00:03.1 to guest 5" in text
    assert said_by(rules.other_guests, "00:03.1", evidence) == ({}, [])


@pytest.mark.parametrize("of", [None, "03:00.0"])  # another physical function, its own
def test_a_virtual_function_is_not_passed_together_with_its_physical_function(of):
    """A card with SR-IOV behind a port without ACS, as on most desktop boards."""
    port = express(bridge("00:1c.0", 3, 3), ROOT_PORT)
    first = below("03:00.0", "00:1c.0")
    virtual = express(function("03:00.4", parent="00:1c.0", physfn=of or "03:00.1"), ENDPOINT)
    evidence = evidence_of(port, first, virtual)
    (reason,) = rules.acs(evidence.machine.functions[parse_sbdf("03:00.4")], evidence)
    assert reason.cure.startswith(
        "pass them to the same guest, or use a slot" if of is None else "use a slot"
    )
