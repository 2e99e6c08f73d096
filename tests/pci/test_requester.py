"""What a function is to an IOMMU: by its class, its place and the machine."""

import attrs
import pytest

from pcipt.pci import Ids, decode_machine, parse_sbdf
from pcipt.pci.requester import Requester, Role, Vendor, requester_of, role_of, vendor_of
from tests.machines import ari_port, bridge, function


@pytest.mark.parametrize(
    ("class_code", "port_type", "role"),
    [
        (0x02_0000, None, Role.ENDPOINT),
        (None, None, Role.ENDPOINT),
        (0x06_0400, None, Role.BRIDGE),
        (0x06_0401, 7, Role.BRIDGE),
        (0x06_0400, 8, Role.REVERSE_BRIDGE),
        (0x06_0000, None, Role.HOST_BRIDGE),
        (0x06_0100, None, Role.ENDPOINT),
        (0x08_0600, None, Role.IOMMU),
    ],
)
def test_roles(class_code, port_type, role):
    assert role_of(class_code, port_type) is role


ARI = decode_machine(
    [
        ari_port("00:1c.0", 3, 3),
        function("03:00.0", parent="00:1c.0"),
        function("03:02.1", parent="00:1c.0"),
        function("03:10.0", parent="00:1c.0", physfn="03:00.0"),
        function("03:12.0", parent="00:1c.0", physfn="03:02.1"),
    ]
)


@pytest.mark.parametrize(
    ("address", "by_vtd"),
    [
        ("03:00.0", "03:00.0"),
        ("03:02.1", "03:00.0"),  # ARI: device 0 of the bus
        ("03:10.0", "03:00.0"),  # a virtual function: its physical function
        ("03:12.0", "03:00.0"),  # whose physical function is an ARI function
    ],
)
def test_vtd_looks_for(address, by_vtd):
    requester = requester_of(ARI.functions[parse_sbdf(address)], ARI)
    assert requester.by_vtd == parse_sbdf(by_vtd)


def test_a_renumbered_function_counts_at_its_present_address():
    machine = decode_machine([bridge("00:1c.0", 5, 5), function("02:01.0", parent="00:1c.0")])
    at = parse_sbdf("05:01.0")
    assert requester_of(machine.functions[parse_sbdf("02:01.0")], machine, at) == Requester(at)


def of(address, vendor, class_code):
    ids = Ids(vendor, 0x1480, class_code)
    raw = function(address)
    data = bytearray(raw.config)
    data[0:2], data[0x09:0x0C] = vendor.to_bytes(2, "little"), class_code.to_bytes(3, "little")
    return attrs.evolve(raw, ids=ids, config=bytes(data))


@pytest.mark.parametrize(
    ("raws", "vendor"),
    [
        ([of("00:00.0", 0x8086, 0x06_0000)], Vendor.INTEL),
        ([of("00:00.0", 0x1022, 0x06_0000)], Vendor.AMD),
        ([of("00:00.0", 0x1D94, 0x06_0000)], Vendor.AMD),  # Hygon
        ([of("00:00.0", 0x8086, 0x06_0000), of("00:00.2", 0x1022, 0x08_0600)], Vendor.AMD),
        ([of("00:00.0", 0x8086, 0x06_0000), of("00:18.0", 0x1022, 0x06_0000)], Vendor.INTEL),
        ([of("00:00.0", 0x8086, 0x06_0000), of("03:00.0", 0x1022, 0x02_8000)], Vendor.INTEL),
        ([], Vendor.INTEL),
    ],
)
def test_vendors(raws, vendor):
    assert vendor_of(decode_machine(raws)) is vendor
