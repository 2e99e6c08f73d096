from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.pvh.areas import Area, Layer, Treatment, areas_from_layers
from pcipt.pci import Address, Range

layers = st.lists(
    st.builds(
        lambda rank, start, size, what: Layer(rank, Range(Address(start), size), Treatment.RAM, what, ""),
        st.integers(0, 4), st.integers(0, 60), st.integers(1, 25), st.sampled_from("abc"),
    ),
    max_size=8,
)  # fmt: skip


@settings(deadline=None)
@given(layers)
def test_every_byte_shows_the_highest_layer_and_nothing_is_left_out(given_layers):
    areas = areas_from_layers(given_layers)
    end = max((layer.range.last + 1 for layer in given_layers), default=0)
    assert sum(area.range.size for area in areas) == end
    at = 0
    for area in areas:
        assert area.range.start == at
        at = area.range.last + 1
        for byte in range(area.range.start, at):
            here = [layer for layer in given_layers if layer.range.contains(byte)]
            top = max((layer.rank for layer in here), default=None)
            if top is None:
                assert area.treatment is Treatment.HOLE
            else:
                assert area.what in {layer.what for layer in here if layer.rank == top}


def test_neighbours_that_say_the_same_are_one_area():
    two = [Layer(0, Range(start, 0x1000), Treatment.RAM, "RAM", "why") for start in (0x1000, 0x2000)]
    assert areas_from_layers(two) == (
        Area(Range(0, 0x1000), Treatment.HOLE, "nothing", "reads give all ones, writes are lost"),
        Area(Range(0x1000, 0x2000), Treatment.RAM, "RAM", "why"),
    )
