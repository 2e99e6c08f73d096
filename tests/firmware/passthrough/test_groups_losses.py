import attrs
import pytest

from pcipt.firmware.passthrough import neighbours
from pcipt.firmware.passthrough.groups import groups_of
from pcipt.firmware.passthrough.groups_losses import losses, named, words_of_uses
from pcipt.pci import parse_sbdf
from pcipt.pci.raw import Use, UseKind
from tests.firmware.passthrough_cases import conventional, evidence_of, said_by, text_of
from tests.machines import function

DISK, NIC = parse_sbdf("00:1f.2"), parse_sbdf("00:1f.6")
SDA, HOME, ROOT = (
    Use(UseKind.DISK, "sda"),
    Use(UseKind.MOUNT, "/home", "sda3"),
    Use(UseKind.MOUNT, "/", "sda2"),
)
SWAP = Use(UseKind.SWAP, "sda4")
ETH, ROUTE, SSH = (
    Use(UseKind.INTERFACE, "eth0"),
    Use(UseKind.ROUTE, "eth0", "xenbr0"),
    Use(UseKind.SSH, "eth0", "xenbr0"),
)

LOSSES = [
    ((), {}),
    ((SDA,), {"dom0-loses": "ok"}),
    ((SDA, HOME), {"mounted": "warn"}),
    ((SDA, SWAP), {"mounted": "warn"}),
    ((SDA, ROOT), {"dom0-loses": "ok"}),  # the root file system has a rule of its own
    ((ETH,), {"dom0-loses": "ok"}),
    ((ETH, ROUTE), {"network-in-use": "warn"}),
    ((ETH, SSH), {"network-in-use": "warn"}),
    ((ETH, ROUTE, HOME), {"network-in-use": "warn", "mounted": "warn"}),
]


@pytest.mark.parametrize(("uses", "expected"), LOSSES)
def test_what_dom0_loses_with_a_function(uses, expected):
    evidence = evidence_of(function("00:1f.2"), uses={DISK: uses})
    seen = attrs.evolve(evidence, unseen_uses=())
    assert said_by(losses, "00:1f.2", seen) == (expected, [])


def test_uses_that_nobody_looked_for():
    assert said_by(losses, "00:1f.2", evidence_of(function("00:1f.2"))) == (
        {},
        ["disks and mounts", "network interfaces"],
    )


def test_the_words():
    assert words_of_uses([SDA, HOME]) == "the file system at /home (through sda3), disk sda"
    assert words_of_uses([ETH, ROUTE]) == "dom0's default route, by eth0 (through xenbr0), interface eth0"
    assert words_of_uses([SSH]) == "an ssh connection to this host, by eth0 (through xenbr0)"
    assert words_of_uses([Use(UseKind.DISK, f"sd{letter}") for letter in "abcdef"]).endswith(
        "disk sdd, and 2 more"
    )


def companions_of(uses, driver="ahci"):
    """A network card whose device has a disk controller too."""
    raws = (
        conventional(function("00:1f.2", driver=driver)),
        conventional(function("00:1f.6", driver="e1000e")),
    )
    evidence = evidence_of(*raws, uses=uses)
    groups = groups_of(evidence)
    return lambda at: neighbours.goes_along(groups, at, evidence), evidence


def test_what_goes_along_is_named_with_driver_disk_and_mount():
    rule, evidence = companions_of({DISK: (SDA, HOME)})
    said = rule(evidence.machine.functions[NIC])
    (reason,) = said
    assert reason.code == "goes-along"
    assert reason.verdict.value == "warn"
    assert reason.text == (
        "with it go 0000:00:1f.2 (driver ahci: the file system at /home (through sda3), disk sda)"
    )
    assert reason.cure == "`pcipt groups 0000:00:1f.6` shows why"


def test_a_function_without_driver_and_uses_is_named_alone():
    _, evidence = companions_of({}, driver=None)
    assert named(DISK, evidence) == "0000:00:1f.2"
    assert named(NIC, evidence) == "0000:00:1f.6 (driver e1000e)"
    console = attrs.evolve(evidence, consoles=frozenset({NIC}), uses={NIC: (ETH,)})
    assert named(NIC, console) == "0000:00:1f.6 (driver e1000e: a console of dom0, interface eth0)"


def test_what_leaves_too_does_not_go_along():
    _, evidence = companions_of({DISK: (SDA,)})
    together = evidence.leaving([DISK, NIC])
    rule = neighbours.rules_of(groups_of(together))[3]
    assert said_by(rule, "00:1f.6", together) == ({}, [])
    assert text_of(rule, "00:1f.6", evidence).startswith("with it go 0000:00:1f.2")
