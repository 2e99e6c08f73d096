"""Machines for the sets of functions: raw functions with ACS bits, resets and phantom functions."""

import struct

import attrs

from pcipt.firmware.passthrough.groups import EVERY_RULE, groups_of, sets_of
from pcipt.pci import parse_sbdf
from tests.firmware.passthrough_cases import DOWNSTREAM, ENDPOINT, ROOT_PORT, UPSTREAM
from tests.machines import bridge, function

ALL = 0x1D  # the four controls that keep requests on the way to the root
FLR = 1 << 28


def pcie(raw, port_type, *, acs=None, enabled=ALL, wide=0, device=0):
    """Give a raw function 4096 bytes with PCI Express; `acs` are the controls that it has (None: no ACS)."""
    data = bytearray(raw.config).ljust(4096, b"\0")
    data[6], data[0x34] = 0x10, 0x40
    struct.pack_into("<BBHI", data, 0x40, 0x10, 0, 0x2 | port_type << 4, device)
    if acs is not None:
        struct.pack_into("<IHHH", data, 0x100, 1 << 16 | 0x0D, acs, enabled & acs, wide)
    return attrs.evolve(raw, config=bytes(data))


def root_port(address, secondary, *, last=None, acs=ALL, **more):
    keys = {key: more.pop(key) for key in ("enabled", "wide") if key in more}
    ids = {"device": more.pop("device_id", 0x10D3)}
    return pcie(bridge(address, secondary, last or secondary, **ids, **more), ROOT_PORT, acs=acs, **keys)


def endpoint(address, parent=None, *, kind=ENDPOINT, acs=None, flr=True, phantom=0, enabled=ALL, **more):
    device = FLR * flr | phantom << 3
    return pcie(function(address, parent=parent, **more), kind, acs=acs, enabled=enabled, device=device)


def switch(*, acs=(ALL, ALL), enabled=ALL):
    """A root port, a switch with two downstream ports on one bus, and an endpoint behind each."""
    return (
        root_port("00:1c.0", 2, last=5),
        pcie(bridge("02:00.0", 3, 5, parent="00:1c.0"), UPSTREAM),
        pcie(bridge("03:00.0", 4, 4, parent="02:00.0"), DOWNSTREAM, acs=acs[0], enabled=enabled),
        pcie(bridge("03:01.0", 5, 5, parent="02:00.0"), DOWNSTREAM, acs=acs[1]),
        endpoint("04:00.0", "03:00.0"),
        endpoint("05:00.0", "03:01.0"),
    )


def sets(evidence, *rules):
    """Name the sets with more than one member, as "00:1c.0 03:00.0"; only by `rules` if some are given."""
    found = sets_of(evidence, groups_of(evidence), *([frozenset(rules)] if rules else []))
    return [" ".join(map(short, each.members)) for each in found if len(each.members) > 1]


def why(evidence, one, other):
    """Name the rules of the edges on the way from one function to another."""
    way = groups_of(evidence).ways_from(parse_sbdf(one), EVERY_RULE).get(parse_sbdf(other), ())
    return [edge.why.value for edge in way]


def short(sbdf):
    return str(sbdf).removeprefix("0000:")
