from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.pvh.area_claims import Area, Claim, Treatment, paint
from pcipt.pci import Address, Range

claims = st.lists(
    st.builds(
        lambda rank, start, size, what: Claim(rank, Range(Address(start), size), Treatment.RAM, what, ""),
        st.integers(0, 4), st.integers(0, 60), st.integers(1, 25), st.sampled_from("abc"),
    ),
    max_size=8,
)  # fmt: skip


@settings(deadline=None)
@given(claims)
def test_every_byte_shows_the_highest_claim_and_nothing_is_left_out(given_claims):
    areas = paint(given_claims)
    end = max((claim.range.last + 1 for claim in given_claims), default=0)
    assert sum(area.range.size for area in areas) == end
    at = 0
    for area in areas:
        assert area.range.start == at
        at = area.range.last + 1
        for byte in range(area.range.start, at):
            here = [claim for claim in given_claims if claim.range.contains(byte)]
            top = max((claim.rank for claim in here), default=None)
            if top is None:
                assert area.treatment is Treatment.HOLE
            else:
                assert area.what in {claim.what for claim in here if claim.rank == top}


def test_neighbours_that_say_the_same_are_one_area():
    two = [Claim(0, Range(start, 0x1000), Treatment.RAM, "RAM", "why") for start in (0x1000, 0x2000)]
    assert paint(two) == (
        Area(Range(0, 0x1000), Treatment.HOLE, "nothing", "reads give all ones, writes are lost"),
        Area(Range(0x1000, 0x2000), Treatment.RAM, "RAM", "why"),
    )
