import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.fadt import LENGTHS, Field, build_fadt, io_port, make_fadt, parse_fadt, port_of
from pcipt.firmware.acpi.table import parse_table
from tests.pvh import native_fadt


@st.composite
def fadts(draw):
    revision = draw(st.sampled_from(sorted(LENGTHS)))
    fields = [field for field in Field if field.end <= LENGTHS[revision]]
    chosen = draw(st.lists(st.sampled_from(fields), unique=True))
    values = {field: draw(st.integers(0, (1 << 8 * field.value[1]) - 1)) for field in chosen}
    return make_fadt(Header("FACP", revision), values)


@settings(deadline=None)
@given(fadts())
def test_what_was_built_is_read_back(fadt):
    data = build_fadt(fadt)
    assert len(data) == LENGTHS[fadt.header.revision]
    parsed = parse_fadt(parse_table(data))
    assert parsed == fadt
    assert parsed.findings == ()
    assert all(parsed[field] == fadt[field] for field in Field)


@settings(deadline=None)
@given(st.integers(36, 400), st.data())
def test_any_length_is_kept_to_the_byte(length, data):
    table = parse_table(
        build_table(Header("FACP", 6), data.draw(st.binary(min_size=length - 36, max_size=length - 36)))
    )
    parsed = parse_fadt(table)
    assert build_fadt(parsed) == table.data
    assert bool(parsed.findings) == (length < 116)


def test_the_fields_cover_the_table_without_gap_or_overlap():
    at = 36
    for field in Field:
        assert field.offset == at
        at = field.end
    assert at == LENGTHS[6]
    assert all(any(field.end == length for field in Field) for length in LENGTHS.values())


def test_a_revision_has_only_its_fields():
    with pytest.raises(ValueError, match="X_DSDT"):
        make_fadt(Header("FACP", 1), {Field.X_DSDT: 1})


@pytest.mark.parametrize(
    ("fields", "dsdt", "facs"),
    [
        ({}, 0x7FE0_0040, 0x7FE0_0000),
        ({"DSDT": 0}, 0x7FE0_0040, 0x7FE0_0000),  # the 64-bit field alone
        ({"X_DSDT": 0, "DSDT": 0x1000}, 0x1000, 0x7FE0_0000),
        ({"FACS": 0, "X_FACS": 0x1_0000_0000}, 0x7FE0_0040, 0x1_0000_0000),
    ],
)
def test_two_ways_to_say_an_address(fields, dsdt, facs):
    parsed = parse_fadt(parse_table(native_fadt(**fields)))
    assert (parsed.dsdt, parsed.facs) == (dsdt, facs)


def test_a_port_as_generic_address():
    generic = io_port(0xB004, 16)
    assert generic.to_bytes(12, "little").hex() == "0110000204b0000000000000"
    assert port_of(generic) == 0xB004


@pytest.mark.parametrize("revision", [0, 2, 7])
def test_a_revision_of_unknown_length_is_not_built(revision):
    with pytest.raises(
        ValueError, match=f"no FADT of revision {revision} can be built, only of 1, 3, 4, 5, 6"
    ):
        make_fadt(Header("FACP", revision), {})
