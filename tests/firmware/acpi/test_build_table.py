from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.firmware.acpi.build_table import Header, build_table, header_from_table, with_checksum
from pcipt.firmware.acpi.table import parse_table

headers = st.builds(
    Header,
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", min_size=4, max_size=4),
    st.integers(0, 255),
    oem_id=st.binary(min_size=6, max_size=6),
    oem_table_id=st.binary(min_size=8, max_size=8),
    oem_revision=st.integers(0, 0xFFFF_FFFF),
    creator_id=st.binary(min_size=4, max_size=4),
    creator_revision=st.integers(0, 0xFFFF_FFFF),
)


@settings(deadline=None)
@given(headers, st.binary(max_size=60))
def test_a_built_table_reads_back_sound(header, body):
    table = parse_table(build_table(header, body))
    assert table.findings == ()
    assert header_from_table(table) == header
    assert table.data[36:] == body


@settings(deadline=None)
@given(st.binary(min_size=4, max_size=40), st.integers(0, 3), st.integers(4, 40))
def test_the_checksum_covers_the_bytes_asked_for(data, at, size):
    assert sum(with_checksum(data, at, size)[:size]) % 256 == 0
