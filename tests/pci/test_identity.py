import pytest
from hypothesis import given

from pcipt.pci import Ids, RawFunction, Sbdf, decode_function
from pcipt.pci.identity import identify
from tests.pci.spaces import BRIDGE, hostile_spaces, space

HERE = Sbdf(0, 0, 0x1F, 2)
LINUX = Ids(0x8086, 0x2922, 0x01_0601, 2, 0x1AF4, 0x1100)


@pytest.mark.parametrize(
    ("config", "linux", "expected"),
    [
        (None, LINUX, LINUX),
        (b"", LINUX, LINUX),
        (b"\xff" * 64, LINUX, LINUX),  # gone: what Linux knew
        (space(), Ids(), Ids(0x8086, 0x10D3, 0, 0, 0, 0)),
        (space(header=BRIDGE), Ids(), Ids(0x8086, 0x10D3, 0, 0, None, None)),
        (space(), Ids(0x8086, 0x10D3, 0x02_8000), Ids(0x8086, 0x10D3, 0x02_8000, 0, 0, 0)),
    ],
)
def test_a_line_of_a_list_needs_the_ids_alone(config, linux, expected):
    assert identify(RawFunction(HERE, config, ids=linux)) == expected


@given(hostile_spaces())
def test_the_ids_are_those_of_the_whole_function(data):
    for linux in (Ids(), LINUX):
        for physfn in (None, Sbdf(0, 0, 0x1F, 0)):
            raw = RawFunction(HERE, data, ids=linux, physfn=physfn)
            whole, quick = decode_function(raw), identify(raw)
            assert (quick.vendor, quick.device) == (whole.ids.vendor, whole.ids.device)
            assert (quick.class_code, quick.revision) == (whole.ids.class_code, whole.ids.revision)
            if whole.header.value == "endpoint":
                assert quick == whole.ids
