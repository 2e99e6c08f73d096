"""What is decoded of each capability: one row a structure, with values that were worked out by hand."""

import pytest
from hypothesis import given

from pcipt.pci import ConfigSpace
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.capabilities.details import CHAPTERS, STRUCTURES, details_of
from pcipt.pci.capabilities.names import EXTENDED_NAMES, STANDARD_NAMES
from tests.pci.spaces import BRIDGE, ENDPOINT, extended_list, hostile_spaces, space, standard_list

MIB = 1 << 20

#  whether extended, id, header, registers -> some of what is decoded; a name stands for the row in the report
ROWS = [
    (False, 0x01, BRIDGE, {2: (2, 0xC9C3), 4: (2, 0x810B), 6: (1, 0x40)}, {
        "capability": {"version": 3, "aux_current_ma": 375, "pme_from_d3hot": True, "d1": False},
        "control_status": {"power_state": "D3hot", "no_soft_reset": True, "pme_status": True},
        "bridge": {"b2_in_d3hot": True, "bus_power_clock_control": False},
    }),
    (False, 0x04, BRIDGE, {2: (2, 0x0123)}, {
        "slots": {"count": 3, "first_in_chassis": True, "chassis": "0x01"},
    }),
    (False, 0x05, ENDPOINT, {2: (2, 0x01A7), 4: (4, 0xFEE00000), 12: (2, 0x4041), 16: (4, 5), 20: (4, 1)}, {
        "control": {"enable": True, "vectors": 8, "vectors_enabled": 4, "maskable": True},
        "address": {"address": "0x00000000fee00000"}, "data": {"data": "0x4041"},
        "masked": {"vectors": "0x00000005"}, "pending": {"vectors": "0x00000001"},
    }),
    (False, 0x07, ENDPOINT, {2: (2, 0x0036), 4: (4, 0x0003_0238)}, {
        "command": {"relaxed_ordering": True, "read_count": 1024, "outstanding": 4},
        "status": {"requester": "02:07.0", "bus_133mhz": True, "complexity": "simple"},
    }),
    (False, 0x08, ENDPOINT, {2: (2, 0xA801), 4: (4, 0xFEE0_0000)}, {
        "msi_mapping": {"enable": True, "fixed": False}, "mapping_base": {"address": "0x00000000fee00000"},
    }),
    (False, 0x09, ENDPOINT, {2: (1, 0x10)}, {"header": {"length": "0x10"}}),
    (False, 0x0A, ENDPOINT, {2: (2, 0x20A0)}, {"port": {"bar": 1, "offset": "0x00a0"}}),
    (False, 0x0D, BRIDGE, {4: (2, 0x1028), 6: (2, 0x0518)}, {
        "subsystem": {"vendor": "0x1028", "device": "0x0518"},
    }),
    (False, 0x10, ENDPOINT, {2: (2, 0x0002), 4: (4, 0x1000_8FE1), 0xC: (4, 0x0043_3C43), 0x12: (2, 0x1011)}, {
        "capability": {"version": 2, "type": "endpoint"},
        "device_capability": {"max_payload": 256, "flr": True, "l1_latency": "unlimited"},
        "link_capability": {"max_speed": 8000, "max_width": 4, "aspm": "L0s L1"},
        "link_status": {"speed": 2500, "width": 1, "slot_clock": True},
    }),
    (False, 0x11, ENDPOINT, {2: (2, 0xC01F), 4: (4, 0x2003), 8: (4, 0x3004)}, {
        "control": {"enable": True, "vectors": 32, "masked": True},
        "table": {"bar": 3, "offset": "0x00002000"}, "pba": {"bar": 4, "offset": "0x00003000"},
    }),
    (False, 0x12, ENDPOINT, {2: (2, 0x0010), 4: (4, 0x48)}, {
        "revision": {"major": 1, "minor": 0}, "registers": {"place": "BAR 4", "offset": "0x00000010"},
    }),
    (False, 0x13, ENDPOINT, {2: (1, 6), 3: (1, 3), 5: (1, 1)}, {
        "capability": {"flr": True, "transactions_pending": True}, "status": {"transactions_pending": True},
    }),
    (False, 0x14, ENDPOINT, {
        2: (1, 1), 4: (4, 0x8000_0003), 8: (4, 0xFD00_0002), 12: (4, 0xFFC), 16: (4, 1),
    }, {
        "entries": [
            {"enable": True, "indicator": "BAR 0", "base": "0x1fd000000", "max_offset": "0x00000fff"},
        ],
    }),
    (True, 0x01, ENDPOINT, {4: (4, 1 << 21), 0x10: (4, 1), 0x18: (4, 0x15)}, {
        "uncorrectable_status": {"acs_violation": True, "poisoned": False},
        "correctable_status": {"receiver": True}, "capability": {"first_error": "0x15"},
    }),
    (True, 0x07, ENDPOINT, {4: (4, 0x8001)}, {"devices": {"devices": [0, 15]}}),
    (True, 0x0B, ENDPOINT, {4: (4, 0x0101_1556)}, {"header": {"id": "0x1556", "revision": 1, "length": 16}}),
    (True, 0x0D, BRIDGE, {4: (2, 0x08FF), 6: (2, 0x151D)}, {
        "capability": {"source_validation": True, "egress_control": True, "egress_vector_bits": 8},
        "control": {"request_redirect": True, "translation_blocking": False, "direct_translated": False,
                    "downstream_memory_target": "blocked", "upstream_memory_target": "blocked",
                    "unclaimed_request_redirect": True},
    }),
    (True, 0x0E, ENDPOINT, {4: (2, 0x0502), 6: (2, 0x0032)}, {
        "capability": {"next_function": 5, "acs_groups": True, "mfvc_groups": False},
        "control": {"function_group": 3, "acs_groups": True},
    }),
    (True, 0x0F, ENDPOINT, {4: (2, 0x0025), 6: (2, 0x8003)}, {
        "capability": {"queue_depth": 5, "page_aligned": True},
        "control": {"enable": True, "smallest_unit": 3},
    }),
    (True, 0x10, ENDPOINT, {8: (2, 9), 0xE: (2, 64), 0x24: (4, 0x8840_800C), 0x28: (4, 1)}, {
        "control": {"enable": True, "memory_enable": True, "ari_hierarchy": False},
        "total_vfs": {"value": 64},
        "bars": [{"index": 0, "address": "0x0000000188408000", "prefetchable": True, "bits": 64}],
    }),
    (True, 0x12, BRIDGE, {4: (2, 3), 6: (2, 0x8001), 8: (4, 0x1000_000C)}, {
        "capability": {"max_groups": 4}, "control": {"groups": 2, "enable": True},
        "base": {"index_position": 12, "address": "0x0000000010000000"},
    }),
    (True, 0x13, ENDPOINT, {4: (2, 1), 6: (2, 0x8100), 8: (4, 32)}, {
        "control": {"enable": True, "reset": False}, "status": {"stopped": True, "pasid_required": True},
        "capacity": {"requests": 32},
    }),
    (True, 0x15, ENDPOINT, {4: (4, 0x0000_0F00), 8: (4, 0x0000_0820)}, {
        "bars": [{"bar": 0, "size": 256 * MIB, "supported": [16 * MIB, 32 * MIB, 64 * MIB, 128 * MIB]}],
    }),
    (True, 0x17, ENDPOINT, {4: (4, 0x0003_0402), 8: (4, 0x101)}, {
        "capability": {"interrupt_vectors": True, "steering_table": "in the MSI-X table", "entries": 4},
        "control": {"mode": "interrupt vectors", "requester": "on"},
    }),
    (True, 0x18, ENDPOINT, {4: (2, 0x1003), 6: (2, 0x1800)}, {
        "max_snoop": {"latency_ns": 3 * 32**4}, "max_no_snoop": {"latency_ns": None},
    }),
    (True, 0x19, ENDPOINT, {4: (4, 2), 8: (4, 0x8001)}, {
        "link_control3": {"equalization_interrupt": True}, "lane_errors": {"lanes": [0, 15]},
    }),
    (True, 0x1B, ENDPOINT, {4: (2, 0x1406), 6: (2, 1)}, {
        "capability": {"execute": True, "max_width": 20}, "control": {"enable": True, "privileged": False},
    }),
    (True, 0x1D, BRIDGE, {4: (2, 0x10A2), 6: (2, 0x0009), 8: (2, 0x0005), 10: (2, 0x0200)}, {
        "capability": {"interrupt_message": 2, "software_trigger": True},
        "control": {"trigger": "fatal errors", "interrupt": True},
        "status": {"triggered": True, "reason": "ERR_FATAL"}, "source": {"requester": "0x0200"},
    }),
    (True, 0x1E, ENDPOINT, {4: (4, 0x0028_281F), 8: (4, 0x40A0_3C0F), 12: (4, 0x31)}, {
        "capability": {"pm_l1_2": True, "common_mode_restore_us": 40, "power_on_us": 10},
        "control1": {"common_mode_us": 60, "threshold_ns": 160 * 1024}, "control2": {"power_on_us": 60},
    }),
    (True, 0x22, ENDPOINT, {4: (4, 0x8000_0464), 8: (4, 0x0000_0A01)}, {
        "times1": {"valid": True, "reset_ns": 100 * 1024}, "times2": {"flr_ns": 33_554_432},
    }),
    (True, 0x02, ENDPOINT, {
        4: (4, 0x0401), 8: (4, 0x5), 12: (2, 0x4), 14: (2, 1),
        16: (4, 0x0201_8001), 20: (4, 0x8000_00FF), 26: (2, 2), 28: (4, 0x007F_0020), 32: (4, 0x010A_0002),
    }, {
        "capability": {"low_priority_channels": 0, "reference_clock_ns": 100, "table_entry_bits": 2},
        "arbitration": {"fixed": True, "wrr32": False, "wrr64": True, "wrr128": False},
        "control": {"arbiter": "WRR64"}, "status": {"loads_table": True},
        "channels": [
            {"table_offset": "0x02", "max_time_slots": 2, "rejects_snoop": True, "fixed": True,
             "enable": True, "id": 0, "arbiter": "Fixed", "traffic_classes": "0xff", "negotiates": True},
            {"max_time_slots": 128, "wrr256": True, "enable": False, "id": 1, "arbiter": "WRR256",
             "traffic_classes": "0x02"},
        ],
    }),
    (True, 0x03, ENDPOINT, {4: (4, 0xFFFE_1234), 8: (4, 0xA036_9FFF)}, {
        "serial": {"number": "a0-36-9f-ff-ff-fe-12-34"},
    }),
    (True, 0x05, ENDPOINT, {
        4: (4, 0x0F02_0201), 16: (4, 0x0102_0005), 24: (4, 0xFED1_C000), 28: (4, 1),
        32: (4, 0x0003_0003), 40: (4, 0x123D_A004),
    }, {
        "element": {"port": "0x0f", "component": "0x02", "type": "Egress"},
        "links": [
            {"target_port": "0x01", "target_component": "0x02", "type": "MemMapped", "register_block": True,
             "valid": True, "address": "0x00000001fed1c000"},
            {"type": "Config", "valid": True, "register_block": False, "function": "03:1b.2",
             "address": "0x00000000123da004"},
        ],
    }),
    (True, 0x09, ENDPOINT, {4: (4, 0x10), 20: (4, 0x8300_0001)}, {
        "capability": {"low_priority_channels": 1, "reference_clock_ns": 100},
        "channels": [{"enable": True, "id": 3, "traffic_classes": "0x01"}],
    }),
    (True, 0x1F, ENDPOINT, {4: (4, 0xFF05), 8: (4, 0x0A03)}, {
        "capability": {"requester": True, "responder": False, "root": True, "granularity_ns": 255},
        "control": {"enable": True, "root_selected": True, "granularity_ns": 10},
    }),
    (True, 0x23, ENDPOINT, {4: (4, 0x0241_1E98), 8: (2, 8), 12: (4, 0x0001_0302)}, {
        "header": {"vendor": "0x1e98", "revision": 1, "length": 36},
        "kind": {"id": "0x0008", "name": "CXL register locator"},
        "blocks": [{"bar": 2, "block": "CXL device registers", "offset": "0x0000000000010000"}],
    }),
    (True, 0x24, ENDPOINT, {4: (4, 0x10), 8: (4, 0x0000_0022)}, {
        "bars": [{"bar": 2, "size": MIB, "supported": [MIB]}],
    }),
    (True, 0x2E, ENDPOINT, {4: (4, 7), 8: (4, 2), 12: (4, 4)}, {
        "capability": {"interrupt_support": True, "interrupt_message": 3},
        "control": {"interrupt_enable": True},
        "status": {"error": True, "busy": False},
    }),
]  # fmt: skip


def decoded(config):
    config = ConfigSpace(config)
    return details_of(config, walk_capabilities(config)[0])


def name(row):
    return f"{'extended' if row[0] else 'standard'}-{row[1]:02x}"


@pytest.mark.parametrize(
    ("extended", "identity", "header", "registers", "expected"), ROWS, ids=[name(row) for row in ROWS]
)
def test_what_is_in_a_capability(extended, identity, header, registers, expected):
    chain = (
        extended_list((0x100, identity, registers))
        if extended
        else standard_list((0x40, identity, registers))
    )
    (detail,) = decoded(space(chain, header=header, size=4096))
    found = detail.json
    for key, fields in expected.items():
        if isinstance(fields, list):
            shown = [
                {field: value for field, value in item.items() if field in fields[number]}
                for number, item in enumerate(found[key][: len(fields)])
            ]
        else:
            shown = {field: value for field, value in found[key].items() if field in fields}
        assert shown == fields


def test_every_structure_has_a_row():
    assert {(extended, identity) for extended, identity, *_ in ROWS} == set(STRUCTURES)
    assert len(ROWS) == len(STRUCTURES)


def test_a_structure_stands_in_one_chapter_and_has_a_name():
    listed = [(each.extended, each.id) for chapter in CHAPTERS for each in chapter.STRUCTURES]
    assert len(listed) == len(set(listed)) == len(STRUCTURES)
    for extended, identity in listed:
        assert identity in (EXTENDED_NAMES if extended else STANDARD_NAMES)


VIRTIO = [
    (1, 16, "CommonCfg", None),
    (2, 20, "Notify", "0x00000004"),
    (2, 16, "Notify", None),
    (5, 20, "PCICfg", None),
    (77, 16, None, None),
]


@pytest.mark.parametrize(("kind", "length", "word", "multiplier"), VIRTIO)
def test_virtio_tells_where_its_structures_are(kind, length, word, multiplier):
    registers = {2: (1, length), 3: (1, kind), 4: (1, 2), 8: (4, 0x3000), 12: (4, 0x1000), 16: (4, 4)}
    chain = standard_list((0x40, 0x09, registers))
    (detail,) = decoded(space(chain, vendor=0x1AF4, device=0x1041, size=256))
    assert detail.json["virtio"] == {"type": word}
    assert detail.json["place"] == {"bar": 2, "offset": "0x00003000", "size": "0x00001000"}
    assert detail.json.get("multiplier", {}).get("value") == multiplier
    (other,) = decoded(space(chain, vendor=0x8086, device=0x1041, size=256))
    assert set(other.json) == {"header"}  # another vendor means something else by the same bytes


CUT = [
    (0x40 + 4, {"control_status": None, "capability": "read"}),
    (0x40 + 6, {"control_status": "read", "capability": "read"}),
]


@pytest.mark.parametrize(("size", "expected"), CUT)
def test_a_register_that_was_not_read_is_null_and_told(size, expected):
    chain = standard_list((0x40, 0x01, {2: (2, 3), 4: (2, 8)}))
    (detail,) = decoded(space(chain, size=size))
    for key, state in expected.items():
        assert (detail.json[key] is None) == (state is None)
    texts = {each.register.key: each.text for each in detail.registers}
    assert (texts["control_status"] == "not read") == (expected["control_status"] is None)


def test_a_structure_of_the_standard_list_ends_with_the_first_256_bytes():
    chain = standard_list((0xF0, 0x10, {2: (2, 2), 0x14: (4, 0xFFFF_FFFF)}))
    (detail,) = decoded(space(chain | {0x104: (4, 0xFFFF_FFFF)}, size=4096)[:])
    assert detail.json["link_capability"] is not None  # at fc
    assert detail.json["link_control"] is None  # at 100: extended space, another structure


def test_vital_product_data_and_strangers_keep_name_and_offset():
    chain = standard_list((0x40, 0x03, {}), (0x50, 0xEE, {}))
    assert [
        (d.capability.name, d.capability.offset, d.registers) for d in decoded(space(chain, size=256))
    ] == [
        ("Vital Product Data", 0x40, None),
        ("Unknown", 0x50, None),
    ]


@given(hostile_spaces())
def test_hostile_bytes_are_told_somehow(data):
    for detail in decoded(data):
        for each in detail.registers or ():
            assert isinstance(each.text, str)
            assert each.json is None or set(each.json)
