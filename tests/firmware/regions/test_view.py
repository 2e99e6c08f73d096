from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.firmware.regions.view import regions_to_json
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import function, machine

MACHINE = machine(function("00:02.0"))


def test_a_region_as_json():
    table = dmar(rmrr(0x7000_0000, 0x7000_1FFF, scope(0, (2, 0)), scope(0xF0, (0x1C, 0), (0, 0), kind=2)))
    answer = regions_to_json(regions_from_tables([table], MACHINE), "DMAR")
    (region,) = answer["regions"]
    (finding,) = region.pop("findings")
    assert finding["code"] == "buses-renumbered"
    assert (answer["source"], answer["findings"]) == ("DMAR", [])
    assert region == {
        "kind": "rmrr",
        "segment": 0,
        "base": "0x70000000",
        "limit": "0x70001fff",
        "pages": 2,
        "scopes": [
            {"type": "endpoint", "bus": 0, "path": [[2, 0]], "sbdf": "0000:00:02.0"},
            {"type": "bridge", "bus": 0xF0, "path": [[0x1C, 0], [0, 0]], "sbdf": None},
        ],
        "devices": [{"sbdf": "0000:00:02.0", "present": True, "owner": "unknown"}],
        "shared": True,
        "mapped": "unknown",
        "listed": None,
    }


def test_an_empty_region_has_no_page_and_a_range_of_functions_two_ends():
    tables = [dmar(rmrr(0x2000, 0x1FFF)), ivrs(ivmd(0x20, 1, 0, 0, 0x1000, 0x1000))]
    empty, everybody = regions_to_json(regions_from_tables(tables, None), "")["regions"]
    assert (empty["base"], empty["limit"], empty["pages"]) == ("0x2000", "0x1fff", 0)
    assert everybody["scopes"][0]["sbdf"] == "0000:00:00.0"
    assert everybody["scopes"][0]["last"] == "0000:ff:1f.7"
