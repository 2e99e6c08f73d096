"""The emulated machine, in one table, and the command line that makes QEMU build it.

Why this processor: without `-smap,-smep` QEMU 7.2's iret kills a PV dom0; `-rdtscp` because its RDTSC exit
for RDTSCP makes Xen kill a PVH dom0; `-monitor` because mwait hangs in Xen's idle loop. An invariant TSC
keeps Xen from trapping each RDTSC of dom0, a quarter of its time; QEMU has to be forced to show one, and then
not to show what it cannot emulate. `no-sharept`: SVM's nested page tables are not in VT-d's format. A PVH
dom0 gets one vCPU: with two the emulated SVM sometimes ends in a triple fault.

With a thread for each vCPU, QEMU 7.2 may go on executing an instruction that another vCPU has just patched:
Linux then spins there, interrupts off, for minutes. It was seen on a busy host, at the scheduler's tracepoint
that recording command names patches (`norecord-cmd`); where processors are few, vCPUs take turns in one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .cell import Cell, Extra, Mode, Suite, Vendor
from .image import Image

#: Reserved memory (first page, pages) for the NIC; the NIC and the test device; the test device and what is
#: plugged in at 01:00.0; the first DMA device. It must lie where the e820 is reserved.
REGIONS = ((0x7FFF0, 4), (0x7FFF8, 2), (0x7FFFB, 2), (0x7FFF5, 2))
#: QEMU's AMD IOMMU has none: its IVRS tells a virtual address size of 0, for which Xen drops every `ivmd=`.
RESERVED: dict[Vendor, str] = {
    "intel": (
        "rmrr=0x7fff0-0x7fff3=0:2:0.0;0x7fff8-0x7fff9=0:2:0.0,0:0:6.0;0x7fffb-0x7fffc=0:0:6.0,0:1:0.0;"
        "0x7fff5-0x7fff6=0:15:0.0"
    ),
    "amd": "",
}
IOMMU: dict[Vendor, str] = {"intel": "intel-iommu,intremap=on", "amd": "amd-iommu,intremap=on"}

NOT_EMULATED = "-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"
CPU = f"EPYC,+svm,+npt,-smap,-smep,-rdtscp,-monitor,x-force-features=on,+invtsc,{NOT_EMULATED}"
VCPUS: dict[Mode, int] = {"pv": 2, "pvh": 1}
THREADS = "multi" if (os.cpu_count() or 1) >= 4 else "single"
MEMORY_MIB = 3072
DOM0_MIB = 1024


@dataclass(frozen=True)
class Part:
    """One function of the machine: its address after boot, QEMU's name for it, QEMU's words."""

    sbdf: str
    name: str
    words: str
    purpose: str


PARTS = (
    # sbdf, name, QEMU device, purpose
    Part(
        "0000:00:03.0",
        "rp1",
        "pcie-root-port,chassis=1,slot=1,bus=pcie.0,addr=03.0",
        "empty: hot-plug goes here",
    ),
    Part("0000:00:04.0", "rp2", "pcie-root-port,chassis=2,slot=2,bus=pcie.0,addr=04.0", "above the NIC"),
    Part(
        "0000:02:00.0",
        "nic",
        "e1000e,bus=rp2,netdev=network,mac=52:54:00:00:00:02",
        "a NIC with a driver, MSI-X and a network",
    ),
    Part(
        "0000:00:05.0",
        "rp3",
        "pcie-root-port,chassis=3,slot=3,bus=pcie.0,addr=05.0,bus-reserve=8",
        "above the SR-IOV function, with room for renumbering",
    ),
    Part(
        "0000:03:00.0",
        "nvme",
        "nvme,serial=pcipt-nvme,subsys=nvme-subsystem,bus=rp3,sriov_max_vfs=2,sriov_vq_flexible=4,"
        "sriov_vi_flexible=2,max_ioqpairs=8,msix_qsize=9",
        "an SR-IOV physical function",
    ),
    Part("0000:00:06.0", "testdev", "pci-testdev,bus=pcie.0,addr=06.0", "no driver wants it"),
    Part(
        "0000:00:07.0",
        "rp4",
        "pcie-root-port,chassis=4,slot=4,bus=pcie.0,addr=07.0,bus-reserve=8",
        "above the nested bridges",
    ),
    Part("0000:0c:00.0", "up", "x3130-upstream,bus=rp4", "a switch"),
    Part("0000:0d:00.0", "down", "xio3130-downstream,bus=up,chassis=5,slot=0", "its only port"),
    Part("0000:0e:00.0", "deep", "pci-testdev,bus=down", "a driverless function three bridges deep"),
    Part(
        "0000:00:08.0",
        "wide",
        "pci-testdev,bus=pcie.0,addr=08.0,membar=1M",
        "no driver wants it either; its BAR 2 has 64 bits",
    ),
    Part(
        "0000:00:09.0",
        "rp5",
        "pcie-root-port,chassis=6,slot=6,bus=pcie.0,addr=09.0,bus-reserve=4",
        "above a DMA device, with room for renumbering",
    ),
    Part(
        "0000:15:00.0",
        "dma",
        "edu,bus=rp5,dma_mask=0xffffffffff",
        "does DMA on command; has a reserved region",
    ),
    Part(
        "0000:00:0c.0",
        "rp6",
        "pcie-root-port,chassis=7,slot=7,bus=pcie.0,addr=0c.0",
        "empty: hot-plug goes here, too",
    ),
    Part(
        "0000:00:0a.0",
        "witness",
        "edu,bus=pcie.0,addr=0a.0,dma_mask=0xffffffffff",
        "does DMA on command; has none: it reaches what dom0 reaches",
    ),
    Part("0000:00:1f.2", "ahci", "", "the disks; part of q35"),
)
PART = {part.name: part for part in PARTS}
#: Where it comes up what is plugged in below rp1 and below rp6: address and PCI path.
HOT, HOT_PATH = "0000:01:00.0", "00_03.0-00_00.0"
HOT2, HOT2_PATH = "0000:1a:00.0", "00_0c.0-00_00.0"
#: Where BARs may be, start and end: below are RAM and MMCFG, between them the interrupt controllers and RAM.
BAR_WINDOWS = ((0xC000_0000, 0xFEC0_0000), (0x1_4000_0000, 1 << 40))


def twins(first: str, second: str) -> tuple[Part, ...]:
    """Give two equal NICs below ports of their own; each MAC address is a serial number as well."""
    port = "pcie-root-port,bus=pcie.0"
    return (
        Part("0000:00:0d.0", "rp7", f"{port},chassis=8,slot=8,addr=0d.0", "above the first"),
        Part("0000:1b:00.0", "first", f"e1000e,bus=rp7,netdev=other,mac={first}", "one of two equal NICs"),
        Part("0000:00:0e.0", "rp8", f"{port},chassis=9,slot=9,addr=0e.0", "above the second"),
        Part("0000:1c:00.0", "second", f"e1000e,bus=rp8,netdev=third,mac={second}", "the other one"),
    )


TWINS = ("52:54:00:00:00:21", "52:54:00:00:00:22")
TWO_NETWORKS = ("-netdev", "user,id=other", "-netdev", "user,id=third")
#: Before all other ports: the bus numbers behind them are higher by one.
SHIFTING = Part("0000:00:02.0", "shifting", "pcie-root-port,chassis=10,slot=10,bus=pcie.0,addr=02.0", "empty")


@dataclass(frozen=True)
class Other:
    """Other hardware, of some runs only: more parts and words, no IOMMU, another Debian's QEMU."""

    parts: tuple[Part, ...] = ()
    words: tuple[str, ...] = ()
    iommu: bool = True
    emulator: Suite | None = None


#: QEMU 10's igb is a NIC whose physical and virtual functions have drivers in Linux: igb and igbvf.
OTHER = {
    "": Other(),
    "no-iommu": Other(iommu=False),
    "igb": Other(
        (
            Part(
                "0000:00:0d.0",
                "rp7",
                "pcie-root-port,chassis=8,slot=8,bus=pcie.0,addr=0d.0",
                "above the NIC with virtual functions",
            ),
            Part(
                "0000:1b:00.0",
                "igb",
                "igb,bus=rp7,netdev=other,mac=52:54:00:00:00:10",
                "a NIC with virtual functions, drivers and a network",
            ),
        ),
        ("-netdev", "user,id=other"),
        emulator="trixie",
    ),
    "twins": Other(twins(*TWINS), TWO_NETWORKS),
    "twins-shifted": Other((SHIFTING, *twins(*TWINS)), TWO_NETWORKS),
    "twins-swapped": Other(twins(*reversed(TWINS)), TWO_NETWORKS),
}


@dataclass(frozen=True)
class Wires:
    """Where QEMU's ends of the machine's wires are."""

    console: Path
    writes: Path
    agent: Path
    qmp: Path


def xen_arguments(cell: Cell, extra: str) -> str:
    """Give Xen's command line."""
    mode = cell.mode
    words = [
        RESERVED[cell.platform.vendor],
        "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all conring_size=1M",
        f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus={VCPUS[mode]} sched=credit",
        "iommu=verbose,no-sharept noreboot bootscrub=0 spec-ctrl=no",
    ]
    if mode == "pvh":
        words.append("dom0=pvh,verbose")
    return " ".join([*words, extra]).strip()


#: iomem=relaxed lets a probe read, through /dev/mem, BARs that a driver has claimed. Debian's own initial RAM
#: disk asks for root.
LINUX_ARGUMENTS = (
    "root=LABEL=rootfs rw iomem=relaxed mitigations=off init_on_alloc=0 audit=0 loglevel=5"
    " systemd.show_status=0 trace_options=norecord-cmd"
)


def qemu_command(cell: Cell, image: Image, payload: Path, wires: Wires, extra: Extra) -> list[str]:
    """Render the machine as QEMU's command line."""
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-machine", "q35", "-accel", f"tcg,thread={THREADS}", "-cpu", CPU]
    command += ["-smp", str(VCPUS[cell.mode]), "-m", str(MEMORY_MIB)]
    if extra.linux:
        command += ["-kernel", str(image.kernel), "-append", f"console=ttyS0 {LINUX_ARGUMENTS} {extra.linux}"]
        command += ["-initrd", str(image.initrd)]
    else:
        command += ["-kernel", str(image.xen), "-append", xen_arguments(cell, extra.xen)]
        command += ["-initrd", f"{image.kernel} console=hvc0 {LINUX_ARGUMENTS},{image.initrd}"]
    for path, name, bus in ((image.disk, "root", "ide.0"), (payload, "payload", "ide.1")):
        snapshot = "off" if image.kept and name == "root" else "on"
        words = f"if=none,id={name},format=raw,file={quote(path)},snapshot={snapshot},cache=unsafe"
        command += ["-drive", words]
        command += ["-device", f"ide-hd,drive={name},bus={bus},serial=pcipt-{name}"]
    command += ["-chardev", f"file,id=console,path={quote(wires.console)}"]
    command += ["-device", "isa-serial,index=0,chardev=console"]
    command += ["-chardev", f"socket,id=agent,path={quote(wires.agent)},server=on,wait=off"]
    command += ["-device", "isa-serial,index=1,chardev=agent"]
    command += ["-qmp", f"unix:{quote(wires.qmp)},server=on,wait=off"]
    # Each configuration write as the emulated hardware gets it, and where its BARs then decode, a line each.
    command += ["-trace", "pci_cfg_write", "-trace", "pci_update_mappings_*", "-D", str(wires.writes)]
    other = OTHER[extra.hardware]
    command += ["-device", IOMMU[cell.platform.vendor]] if other.iommu else []
    command += ["-device", "nvme-subsys,id=nvme-subsystem", "-netdev", "user,id=network", *other.words]
    for part in (*PARTS, *other.parts):
        if part.words:
            command += ["-device", f"{part.words},id={part.name}"]
    return command


def quote(path: Path) -> str:
    """Double the commas in a path, as QEMU's option parser wants them."""
    return str(path).replace(",", ",,")
