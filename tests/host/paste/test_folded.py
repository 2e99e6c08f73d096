"""Text of `lspci -nnv` and `-vvnn` that a mail program folded is read like the whole text.

Source: RFC 3676 §4.2 (lines of at most 78 characters), RFC 5322 §2.1.1; common programs fold at 72 or 76.
"""

import pytest

from pcipt.host.paste.blocks import blocks_of
from pcipt.host.paste.text import lines_of

WIDTHS = (60, 66, 70, 72, 74, 76, 78, 80)
INDENTS = ("", " ", "same", "\t", "    ")
TEXT = """\
00:01.0 PCI bridge [0604]: Intel Corporation Xeon E3-1200 v3/4th Gen Core Processor PCI Express x16 Controller [8086:0c01] (rev 06) (prog-if 00 [Normal decode])
	Subsystem: Super Micro Computer Inc Xeon E3-1200 v3/4th Gen Core Processor PCI Express x16 Controller [15d9:0804]
	Flags: bus master, fast devsel, latency 0, IRQ 25, NUMA node 1, IOMMU group 3
	Bus: primary=00, secondary=01, subordinate=02, sec-latency=0
	I/O behind bridge: 0000e000-0000efff [size=4K] [16-bit]
	Memory behind bridge: f7000000-f7ffffff [size=16M] [32-bit]
	Prefetchable memory behind bridge: 00000000e0000000-00000000f1ffffff [size=288M] [32-bit]
	Capabilities: [88] Subsystem: Super Micro Computer Inc Xeon E3-1200 v3/4th Gen Core Processor PCI Express x16 Controller [15d9:0804]
	Kernel driver in use: pcieport

01:00.0 VGA compatible controller [0300]: NVIDIA Corporation TU116 [GeForce GTX 1660 SUPER] [10de:21c4] (rev a1) (prog-if 00 [VGA controller])
	Subsystem: ASUSTeK Computer Inc. TU116 [GeForce GTX 1660 SUPER Overclocked Dual Edition] [1043:8748]
	Physical Slot: 1
	Flags: bus master, fast devsel, latency 0, IRQ 136, NUMA node 1, IOMMU group 3
	Memory at f6000000 (32-bit, non-prefetchable) [size=16M]
	Memory at e0000000 (64-bit, prefetchable) [size=256M]
	Memory at f0000000 (64-bit, prefetchable) [size=32M]
	I/O ports at e000 [size=128]
	Expansion ROM at 000c0000 [virtual] [disabled] [size=128K]
	Capabilities: [60] Power Management version 3
	Capabilities: [68] MSI: Enable+ Count=1/1 Maskable- 64bit+
	Capabilities: [100] Virtual Channel
	Kernel driver in use: xen-pciback
	Kernel modules: nvidiafb, nouveau

02:00.1 Ethernet controller [0200]: Intel Corporation Ethernet Controller X710 for 10GbE SFP+ [8086:1572] (rev 02)
	DeviceName: Onboard LAN Brodcom 5762 Ethernet Adapter of the second kind on the planar board
	Subsystem: Intel Corporation Ethernet Converged Network Adapter X710-4 Virtual Function Attached [8086:0001]
	Control: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr+ Stepping- SERR+ FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Latency: 0, Cache Line Size: 64 bytes
	Region 0: Memory at 92000000 (64-bit, prefetchable) [size=16M]
	Region 3: Memory at 93800000 (64-bit, prefetchable) [disabled] [size=32K]
	Expansion ROM at 93f00000 [disabled] [size=512K]
	Kernel driver in use: i40e
	Kernel modules: i40e

03:00.0 RAID bus controller [0104]: Broadcom / LSI MegaRAID SAS-3 3108 [Invader] Memory and I/O Region Bus Flags [1000:005d] (rev 02)
	Flags: fast devsel, IRQ 16
	Memory at <unassigned> (64-bit, non-prefetchable) [disabled] [size=64K]
	Kernel driver in use: megaraid_sas
"""  # noqa: E501 - lines of lspci


def fold(row, width, indent):
    """Fold a line at its last space before a column, as often as needed; what follows gets an indentation."""
    own = row[: len(row) - len(row.lstrip())]
    parts, rest = [], row
    while len(rest.expandtabs(8)) > width:
        fits = [at for at, sign in enumerate(rest) if sign == " " and len(rest[:at].expandtabs(8)) <= width]
        fits = [at for at in fits if rest[:at].strip()]
        if not fits:
            break
        parts.append(rest[: fits[-1]])
        rest = (own if indent == "same" else indent) + rest[fits[-1] + 1 :]
    return [*parts, rest]


def read(text):
    found = blocks_of(lines_of(text.encode()))[0]
    return {
        str(each.sbdf): (each.words, each.words.ids, each.words.told, each.words.resources) for each in found
    }


def test_the_whole_text_has_what_the_folded_one_must_have():
    words = {name: each[0] for name, each in read(TEXT).items()}
    assert list(words) == ["0000:00:01.0", "0000:01:00.0", "0000:02:00.1", "0000:03:00.0"]
    assert words["0000:00:01.0"].subsystem == (0x15D9, 0x0804)
    assert words["0000:00:01.0"].numa_node == 1
    assert len(words["0000:00:01.0"].windows) == 3
    assert len(words["0000:01:00.0"].bars) == 5
    assert words["0000:02:00.1"].command == 0x546
    assert words["0000:03:00.0"].driver == "megaraid_sas"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("indent", INDENTS)
@pytest.mark.parametrize("quote", ["", "> ", "> > "])
def test_a_folded_text_is_read_like_the_whole(width, indent, quote):
    rows = [part for row in TEXT.split("\n") for part in fold(row, width, indent)]
    assert len(rows) > TEXT.count("\n") + 1
    assert read("\n".join(f"{quote}{row}" for row in rows)) == read(TEXT)


def test_only_the_first_line_of_a_folded_one_may_be_quoted():
    rows = ["\n".join(fold(row, 72, "")) for row in TEXT.split("\n")]
    assert read("\n".join(f"> {row}" for row in rows)) == read(TEXT)


@pytest.mark.parametrize("after", ["root@other:~# lspci -nnv", "$ lspci", "Kernel driver in use: e1000e", ""])
def test_what_follows_a_long_line_without_ids_is_no_rest_of_it(after):
    long = "\tSubsystem: Some Vendor With A Long Name Device With A Long Name"
    text = f"00:02.0 VGA compatible controller [0300]: Intel Device [8086:1912]\n{long}\n{after}\n"
    text += "00:03.0 Ethernet controller [0200]: Intel Device [8086:10d3]\n"
    found = read(text)
    assert list(found) == ["0000:00:02.0", "0000:00:03.0"]
    assert found["0000:00:02.0"][0].subsystem is None
    assert found["0000:00:02.0"][0].driver == ("e1000e" if "driver" in after else None)
