"""Our registers beside those of lspci, on the recordings of other projects."""

import random
import shutil

import pytest

from pcipt.host.dump import read_dump
from tests import lspci_capabilities
from tests.trees import dumps

needs_lspci = pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")


@needs_lspci
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_each_line_of_lspci_has_its_counterpart(path):
    if not path.exists():
        pytest.skip("the dumps of other projects are not here: ../shared/data/pciutils")
    theirs = lspci_capabilities.run(path)
    compared = []
    for raw in read_dump(str(path)).functions:
        compared += lspci_capabilities.compare(theirs[str(raw.sbdf)], raw.config)
    assert compared


#  where each structure lies: offset -> id, bytes that are random; the rest of a structure stays zero
STANDARD = {
    0x40: (0x01, range(2, 6)),
    0x48: (0x05, range(2, 24)),
    0x60: (0x13, range(2, 6)),
    0x68: (0x0D, range(4, 8)),
    0x70: (0x10, range(2, 0x34)),
    0xB0: (0x11, range(2, 12)),
    0xC0: (0x08, range(2, 12)),
    0xD0: (0x07, range(2, 16)),
}
EXTENDED = {
    0x100: (0x0001, range(4, 0x38)),
    0x140: (0x000D, range(4, 8)),
    0x148: (0x000E, range(4, 8)),
    0x150: (0x000F, range(4, 8)),
    0x158: (0x0013, range(4, 16)),
    0x168: (0x001B, range(4, 8)),
    0x180: (0x0010, range(4, 0x40)),
    0x1C0: (0x0015, range(4, 0x34)),
    0x200: (0x0024, range(4, 0x34)),
    0x240: (0x0018, range(4, 8)),
    0x250: (0x001E, range(4, 16)),
    0x260: (0x0019, range(4, 12)),
    0x270: (0x001D, range(4, 12)),
    0x280: (0x0012, range(4, 0x30)),
    0x2C0: (0x0017, range(4, 8)),
    0x2D0: (0x002E, range(4, 16)),
    0x2E0: (0x0003, range(4, 12)),
    0x2F0: (0x001F, range(4, 12)),
    0x300: (0x0002, range(4, 0x70)),
    0x380: (0x0005, range(4, 0x90)),
}
PORTS = (0x0, 0x1, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xA)


def tamed(put, word):
    """Take out what lspci tells wrongly or not at all, with the reason."""
    put(0x46, 0)  # a bridge's register of Power Management, which lspci shows of other functions too
    put(0x62, word(0x62) & 0xFF00 | 6)  # the length of Advanced Features
    put(0xC2, 0xA800 | word(0xC2) & 3)  # of HyperTransport: MSI Mapping
    put(0x94, word(0x94) & (0xFFFF if word(0x94) >> 12 & 3 != 2 else 0xCFFF))  # reserved: lspci is silent
    put(0x9C, word(0x9C) & 0xFF00 | (2, 6, 14, 30, 62)[word(0x9C) % 5])  # all speeds up to the highest
    for register in (0x244, 0x246):
        put(register, word(register) & 0xE3FF | min(word(register) >> 10 & 7, 5) << 10)  # a shift too far
    put(0x284, word(0x284) & 0xCFFF)  # a multicast window of 2 GiB and more: lspci's number overflows
    put(0x26A, 0)  # errors of lanes above 15, which lspci does not read
    put(0x308, word(0x308) & 0xFF0F)  # reserved ways of arbitration, which lspci names if they are there
    for channel in range(0x310, 0x370, 12):
        put(channel, word(channel) & 0xFF3F)
        put(channel + 2, word(channel + 2) & 0xFFBF)  # 6 of the 7 bits of time slots are read by lspci
    put(0x384, word(0x384) & 0x070F)  # seven links at most; 4 of the 8 bits that lspci takes are the type
    for base in (0x1C0, 0x200):
        put(base + 8, word(base + 8) & 0xFF1F | 6 << 5)  # all six BARs
        for size in range(base + 9, base + 9 + 48, 8):
            put(size, word(size) & 0xFF00 | word(size) % 44)
    for bar in range(0x1A4, 0x1BC, 4):
        put(bar, word(bar) & 0xFFF8 | (word(bar) & 4 if bar < 0x1B8 else 0))  # no upper half behind the last


def a_function(source, port):
    data = bytearray(4096)
    data[0:4], data[6], data[0x34] = bytes.fromhex("8680d310"), 0x10, 0x40

    def word(at):
        return int.from_bytes(data[at : at + 2], "little")

    def put(at, value):
        data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "little")

    offsets = list(STANDARD)
    for offset, after in zip(offsets, [*offsets[1:], 0], strict=True):
        identity, varied = STANDARD[offset]
        for each in varied:
            data[offset + each] = source.randrange(256)
        data[offset], data[offset + 1] = identity, after
    put(0x72, word(0x72) & 0xFF00 | port << 4 | source.choice((1, 2)))
    offsets = list(EXTENDED)
    for offset, after in zip(offsets, [*offsets[1:], 0], strict=True):
        identity, varied = EXTENDED[offset]
        for each in varied:
            data[offset + each] = source.randrange(256)
        data[offset : offset + 4] = (identity | 1 << 16 | after << 20).to_bytes(4, "little")
    tamed(put, word)
    return bytes(data)


@needs_lspci
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("seed", range(3))
def test_random_registers_are_told_as_lspci_tells_them(tmp_path, port, seed):
    source = random.Random(1000 * seed + port)
    spaces = {f"0000:{bus:02x}:00.0": a_function(source, port) for bus in range(40)}
    text = ""
    for address, data in spaces.items():
        rows = (f"{at:02x}: {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
        text += f"{address} x\n" + "\n".join(rows) + "\n\n"
    (tmp_path / "dump").write_text(text)
    theirs = lspci_capabilities.run(tmp_path / "dump")
    for address, data in spaces.items():
        compared = set(lspci_capabilities.compare(theirs[address], data))
        assert {"ACSCap", "ACSCtl", "ARICap", "AFCap", "IOVCtl", "PMCSR", "MSI-X:", "DevCap"} <= compared
