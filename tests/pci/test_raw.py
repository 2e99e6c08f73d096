import sys

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import RawFunction, Resource, Sbdf

HERE = Sbdf(0, 1, 0, 0)
USED, UNUSED = Resource(0xE000_0000, 0x1000, Resource.MEMORY), Resource(0, 0, 0)


@given(st.none() | st.binary(max_size=300) | st.binary(max_size=64).map(lambda data: data.ljust(4096, b"\0")))
def test_config_space_is_given_back_as_it_was_read(config):
    raw = RawFunction(HERE, config)
    assert raw.config == config
    assert attrs.evolve(raw, driver="igb").config == config
    assert raw == RawFunction(HERE, config)


def test_a_large_config_space_takes_little_memory():
    raw = RawFunction(HERE, bytes(range(64)).ljust(4096, b"\0"))
    assert sys.getsizeof(raw._config) < 256


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([], 0),
        ([UNUSED] * 7, 7),  # BARs and ROM always have their lines
        ([USED] + [UNUSED] * 16, 7),
        ([UNUSED] * 10 + [USED] + [UNUSED] * 6, 17),  # SR-IOV keeps all
        ([USED] * 3, 3),  # a short file
    ],
)
def test_lines_that_nothing_uses_are_left_out(lines, kept):
    assert RawFunction(HERE, resources=tuple(lines)).resources == tuple(lines[:kept])
