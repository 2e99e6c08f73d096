"""A recording for each boot: once, bounded, the newest of another boot is found."""

import os

import pytest

from pcipt.errors import InputError
from pcipt.host.policy.boots import MOST, last_boot, record_boot, recorded_boots
from pcipt.host.sysfs import read_machine
from tests.trees import add

BOOTS = [f"{number:08x}-0000" for number in range(12)]


@pytest.fixture
def root(tmp_path):
    add(tmp_path / "machine", "pci0000:00/0000:00:03.0")
    return str(tmp_path / "machine")


def test_each_boot_is_recorded_once_and_ten_are_kept(root, tmp_path):
    directory = str(tmp_path / "state/boots")
    for number, boot in enumerate(BOOTS):
        path = record_boot(root, boot, f"202611{number + 1:02}T080000Z", directory)
        assert record_boot(root, boot, "20261130T080000Z", directory) is None
        assert [raw.sbdf for raw in read_machine(path)] == [raw.sbdf for raw in read_machine(root)]
    kept = [os.path.basename(path) for path in recorded_boots(directory)]
    assert kept == [f"202611{number + 1:02}T080000Z.{number:08x}" for number in range(12 - MOST, 12)]
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert last_boot(BOOTS[11], directory).endswith(f".{BOOTS[10][:8]}")
    assert last_boot("ffffffff-0000", directory).endswith(f".{BOOTS[11][:8]}")


def test_other_names_are_left_alone(root, tmp_path):
    directory = tmp_path / "boots"
    (directory / "mine").mkdir(parents=True)
    record_boot(root, BOOTS[0], "20261101T080000Z", str(directory))
    assert len(recorded_boots(str(directory))) == 1
    assert last_boot(BOOTS[0], str(directory)) is None


def test_without_an_id_of_the_boot_nothing_is_written(root, tmp_path):
    with pytest.raises(InputError, match="id of this boot"):
        record_boot(root, "", "20261101T080000Z", str(tmp_path / "boots"))
    assert recorded_boots(str(tmp_path / "boots")) == []
