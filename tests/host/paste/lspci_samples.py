"""A made-up machine as lspci would print it, in several forms."""

from tests.machines import config

BRIDGE = config(vendor=0x1B36, device=0x000C, class_code=0x060400, header=1, command=7, buses=(0, 1, 1))
CARD = config(vendor=0x8086, device=0x9C03, class_code=0x010601, command=7, bars=(0, 0, 0, 0, 0, 0xF063_D000))

WORDS = """\
00:1c.0 PCI bridge [0604]: Example Root Port [1b36:000c] (rev 02) (prog-if 00 [Normal decode])
	Control: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=fast >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Latency: 0, Cache Line Size: 64 bytes
	Bus: primary=00, secondary=01, subordinate=01, sec-latency=0
	I/O behind bridge: [disabled]
	Memory behind bridge: f0600000-f06fffff [size=1M] [32-bit]
	Prefetchable memory behind bridge: 00000000fff00000-00000000000fffff [disabled] [64-bit]
	Capabilities: [40] Express (v2) Root Port (Slot+), MSI 00
		DevCap:	MaxPayload 128 bytes, PhantFunc 0
	Kernel driver in use: pcieport

01:00.0 SATA controller [0106]: Example Corporation 8 Series [AHCI mode] [8086:9c03] (prog-if 01 [AHCI 1.0])
	Subsystem: Example Device [17aa:2214]
	Control: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	NUMA node: 1
	Region 0: I/O ports at 5088 [size=8]
	Region 1: Memory at <unassigned> (64-bit, prefetchable) [disabled] [size=256M]
	Region 5: Memory at f063d000 (32-bit, non-prefetchable) [size=2K]
	Expansion ROM at f0640000 [disabled] [size=64K]
	Capabilities: [160] Single Root I/O Virtualization (SR-IOV)
		Region 2: Memory at 00000000f0650000 (64-bit, non-prefetchable)
	Kernel driver in use: ahci
	Kernel modules: ahci
"""


def rows(data):
    return "".join(f"{at:02x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16))


BYTES = f"00:1c.0 PCI bridge: Example Root Port\n{rows(BRIDGE)}\n01:00.0 SATA controller: x\n{rows(CARD)}\n"
