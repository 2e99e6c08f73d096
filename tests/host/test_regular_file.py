import os

import pytest

from pcipt.errors import InputError
from pcipt.host.regular_file import open_regular, read_regular


def test_a_file_is_read_whole_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert read_regular(str(path), 4) == b"four"
    with pytest.raises(InputError, match="is longer than 3 bytes"):
        read_regular(str(path), 3)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(str(tmp_path / "link"), 4) == b"four"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])  # a FIFO without a writer would wait for ever
def test_what_is_no_regular_file_is_refused_at_once(make, tmp_path):
    make(tmp_path / "odd")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match="is no regular file"):
        open_regular(str(tmp_path / "odd"))
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_is_not_there_is_said_by_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular(str(tmp_path / "none"), 1)
