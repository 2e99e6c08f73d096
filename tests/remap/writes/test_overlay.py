from hypothesis import given
from hypothesis import strategies as st

from pcipt.remap.writes.overlay import Overlay, overlay_of


@given(
    st.dictionaries(st.integers(0, 9), st.integers()), st.lists(st.tuples(st.integers(0, 400), st.integers()))
)
def test_it_is_a_dictionary_whose_past_stays(base, puts):
    expected, mapping = dict(base), overlay_of(base)
    for key, value in puts:
        past, before = mapping, dict(mapping)
        mapping = mapping.put(key, value)
        expected[key] = value
        assert dict(past) == before
    assert mapping == expected
    assert list(mapping) == list(expected)
    assert len(mapping) == len(expected)
    assert all(key in mapping for key in expected)
    assert -1 not in mapping


def test_many_changes_make_a_new_base():
    mapping = Overlay(dict.fromkeys(range(1000), 0))
    for number in range(1000):
        mapping = mapping.put(number, 1)
    assert set(mapping.values()) == {1}
    assert len(mapping) == 1000


def test_an_overlay_is_not_wrapped_again():
    mapping = Overlay({})
    assert overlay_of(mapping) is mapping
