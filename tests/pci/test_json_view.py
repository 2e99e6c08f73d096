import json
import re

import pytest
from hypothesis import given

from pcipt.pci import Finding, Ids, PciPath, RawFunction, Resource, Sbdf, decode_function
from pcipt.pci.json_view import json_from_function
from pcipt.pci.topology import Position
from tests.pci.spaces import BRIDGE, bars, extended_list, hostile_spaces, space, standard_list

HERE = Sbdf(0, 2, 0, 0)
#  the keys that programs rely on
KEYS = {
    "sbdf", "path", "vendor", "device", "class", "revision", "subsystem_vendor", "subsystem_device", "header",
    "driver", "numa_node", "bars", "bridge", "capabilities", "sriov", "physfn", "findings",
}  # fmt: skip


def view(config, position=None, **linux):
    found = json_from_function(decode_function(RawFunction(HERE, config, **linux), position))
    assert json.loads(json.dumps(found)) == found
    assert found.keys() >= KEYS
    return found


def test_what_is_unknown_is_null():
    found = view(None)
    assert {key for key in KEYS if found[key] is not None} == {
        "sbdf",
        "header",
        "bars",
        "capabilities",
        "findings",
    }
    assert (found["sbdf"], found["header"], found["bars"]) == ("0000:02:00.0", "unknown", [])
    assert [finding["code"] for finding in found["findings"]] == ["no-config"]


def test_ids_are_padded_strings():
    found = view(None, ids=Ids(0x86, 1, 0x0200, 3, 0, 0xFFFF))
    assert (found["vendor"], found["device"], found["class"]) == ("0x0086", "0x0001", "0x000200")
    assert (found["revision"], found["subsystem_vendor"], found["subsystem_device"]) == (
        "0x03",
        "0x0000",
        "0xffff",
    )


def test_linux_is_quoted():
    position = Position(Sbdf(0, 0, 0x1C, 0), PciPath(0, ((0, 0x1C, 0), (0, 0, 0))), (Finding("code", "why"),))
    found = view(space(), position, driver="e1000e", numa_node=1, physfn=Sbdf(0, 2, 0, 1))
    assert [found[key] for key in ("path", "parent", "driver", "numa_node", "physfn")] == [
        "00_1c.0-00_00.0", "0000:00:1c.0", "e1000e", 1, "0000:02:00.1",
    ]  # fmt: skip
    assert found["findings"] == [{"code": "code", "text": "why", "next": ""}]


def test_a_bar_beyond_a_double_is_exact():
    found = view(
        space({0x04: (2, 2), **bars(0xFFFF_F00C, 0xFFFF_FFFF)}),
        resources=(Resource(0, 0, 0), Resource(0, 0, 0)),
    )
    assert found["bars"] == [
        {
            "index": 0,
            "kind": "mem64",
            "address": "0xfffffffffffff000",
            "size": None,
            "prefetchable": True,
            "decoding": True,
            "assigned": True,
            "claimed": None,
        }
    ]
    assert found["command"] == "0x0002"


def test_a_bridge_has_numbers_and_windows():
    found = view(
        space({0x18: (4, 0x04_02_01), 0x1C: (2, 0x4030), 0x20: (4, 0xFFF0), 0x24: (4, 0xFFF0)}, header=BRIDGE)
    )
    assert found["header"] == "bridge"
    assert found["bridge"] == {
        "primary": 1,
        "secondary": 2,
        "subordinate": 4,
        "windows": [{"kind": "io", "base": "0x3000", "limit": "0x4fff"}],
    }


STANDARD = standard_list(
    (0x40, 0x10, {0x02: (2, 0x0142), 0x28: (2, 0x0020)}),
    (0x80, 0x11, {0x02: (2, 0x8003), 0x04: (4, 0x2003), 0x08: (4, 0x3003)}),
    (
        0x90,
        0x14,
        {
            0x02: (1, 2),
            0x04: (4, 0x8000_0002),
            0x08: (4, 0xFD00_0000),
            0x0C: (4, 0xFFC),
            0x10: (4, 0x0000_0151),
        },
    ),
)
EXTENDED = extended_list(
    (
        0x100, 0x0010,
        {
            0x08: (2, 9), 0x0C: (2, 7), 0x0E: (2, 8), 0x10: (2, 2),
            0x14: (2, 128), 0x16: (2, 2), 0x1A: (2, 0x10ED),
        },
    ),
    (0x200, 0x0015, {0x04: (4, 0x30), 0x08: (4, 0x20)}),
)  # fmt: skip


def test_every_structure_has_its_object():
    found = view(space(STANDARD | EXTENDED, size=4096))
    assert [(c["id"], c["offset"], c["extended"]) for c in found["capabilities"]] == [
        ("0x10", "0x40", False),
        ("0x11", "0x80", False),
        ("0x14", "0x90", False),
        ("0x0010", "0x100", True),
        ("0x0015", "0x200", True),
    ]
    assert found["capabilities"][3]["name"] == "SR-IOV"
    assert found["express"] == {"type": "root-port", "slot": True, "ari_forwarding": True}
    assert found["msix"] == {
        "vectors": 4,
        "enabled": True,
        "table": {"bar": 3, "offset": "0x2000", "size": 64},
        "pba": {"bar": 3, "offset": "0x3000", "size": 8},
    }
    assert found["enhanced_allocation"] == [
        {"bei": 0, "properties": "0x00", "address": "0xfd000000", "size": 4096, "enabled": True},
        {"bei": 5, "properties": "0x01", "address": None, "size": None, "enabled": False},
    ]
    assert found["resizable_bars"] == [{"index": 0, "size": 1 << 20, "supported": [1 << 20, 1 << 21]}]
    assert found["sriov"] == {
        "total_vfs": 8,
        "initial_vfs": 7,
        "num_vfs": 2,
        "vf_offset": 128,
        "vf_stride": 2,
        "vf_device": "0x10ed",
        "vf_enable": True,
        "memory_enable": True,
        "ari": False,
        "bars": [],
        "page_size": None,
        "resizable_bars": [],
    }


@pytest.mark.parametrize("virtual", [False, True])
@given(hostile_spaces())
def test_every_function_can_be_printed(virtual, data):
    found = view(data, physfn=Sbdf(0, 2, 0, 1) if virtual else None)
    assert [bar for bar in found["bars"] if not re.fullmatch("0x[0-9a-f]{1,16}", bar["address"])] == []
