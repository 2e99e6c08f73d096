import os

import pytest

from pcipt.errors import InputError, NoSuchDeviceError, NotPermittedError
from pcipt.host.control import read_register, write_register
from pcipt.pci import Sbdf
from pcipt.pci.config import BUS_NUMBERS, COMMAND, WRITABLE, Register, bar_word
from tests.machines import config
from tests.trees import a_directory, a_fifo, a_link, add

SBDF = Sbdf(0, 0, 0x1F, 2)
HOME = "pci0000:00/0000:00:1f.2"


def test_the_command_register_is_written_and_nothing_else(tmp_path):
    home = add(tmp_path, HOME, config=config(command=0x0406, size=256))
    assert read_register(str(tmp_path), SBDF, COMMAND) == 0x0406
    write_register(str(tmp_path), SBDF, COMMAND, 0x0104)
    assert read_register(str(tmp_path), SBDF, COMMAND) == 0x0104
    assert (home / "config").read_bytes() == config(command=0x0104, size=256)


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (bar_word(0), 0xFE00_0004),
        (bar_word(5), 1),
        (Register(0x38, 4), 0xF000_0001),
        (BUS_NUMBERS, 0x00_0505_00),
    ],
)
def test_words_are_written_whole(tmp_path, register, value):
    home = add(tmp_path, HOME, config=config(size=256))
    write_register(str(tmp_path), SBDF, register, value)
    assert read_register(str(tmp_path), SBDF, register) == value
    data = (home / "config").read_bytes()
    assert data[register.offset : register.offset + 4] == value.to_bytes(4, "little")


@pytest.mark.parametrize(
    "register", [Register(0x40, 4), Register(0x04, 4), Register(0x19, 1), Register(0x2C, 4)]
)
def test_any_other_register_is_not_written(tmp_path, register):
    add(tmp_path, HOME, config=config(size=256))
    assert register not in WRITABLE
    with pytest.raises(ValueError):
        write_register(str(tmp_path), SBDF, register, 0)


def test_an_absent_device_reads_all_ones(tmp_path):
    add(tmp_path, HOME, config=b"\xff" * 64)
    assert read_register(str(tmp_path), SBDF, COMMAND) == 0xFFFF


BAD = [
    (None, NoSuchDeviceError),
    ("\x86", InputError),  # ends before the register
    (a_directory, InputError),
    (a_fifo, InputError),
    (a_link("/dev/null"), InputError),
]


@pytest.mark.parametrize(("content", "error"), BAD)
def test_a_config_that_is_none_is_refused(tmp_path, content, error):
    add(tmp_path, HOME, config=content)
    with pytest.raises(error):
        read_register(str(tmp_path), SBDF, COMMAND)
    if content != "\x86":
        with pytest.raises(error):
            write_register(str(tmp_path), SBDF, COMMAND, 0)


def test_an_absent_function_is_told(tmp_path):
    add(tmp_path, HOME)
    for call in (
        lambda: read_register(str(tmp_path), Sbdf(0, 1, 0, 0), COMMAND),
        lambda: write_register(str(tmp_path), Sbdf(0, 1, 0, 0), COMMAND, 0),
    ):
        with pytest.raises(NoSuchDeviceError) as caught:
            call()
        assert caught.value.address == "0000:01:00.0"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_without_the_right_the_error_says_so(tmp_path):
    home = add(tmp_path, HOME)
    (home / "config").chmod(0o400)
    with pytest.raises(NotPermittedError):
        write_register(str(tmp_path), SBDF, COMMAND, 0)


@pytest.mark.parametrize("value", [-1, 0x10000])
def test_a_value_of_more_than_16_bits_is_our_own_mistake(tmp_path, value):
    add(tmp_path, HOME)
    with pytest.raises(ValueError):
        write_register(str(tmp_path), SBDF, COMMAND, value)
