"""Runs the daemon on this machine: its Linux, its Xen, hot-plug messages and configuration writes."""

from typing import Any

from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import Watch, no_watch, open_watch
from pcipt.firmware.acpi.mcfg import regions_from_mcfg
from pcipt.host.files import TABLES
from pcipt.host.live import LinuxHost
from pcipt.host.machine_files import read_listed
from pcipt.host.uevents import UeventSource
from pcipt.watch.kprobe import KprobeSource
from pcipt.watch.xentrace_live import XentraceSource
from pcipt.xen.interface import Dom0Kind
from pcipt.xen.libxc import open_libxc


def run_live(options: Options, settings: Settings, log: Any) -> None:
    """Open everything, run until told to stop, and close everything.

    Raises: UnsupportedError where this is no dom0 of a Xen, or the kernel sends no hot-plug messages.
    """
    with open_libxc() as xen:
        # Both sources are opened before the first reading, so that nothing falls in between.
        hotplug = UeventSource()
        watch = watch_by(settings.watch_source, pvh=xen.identity.dom0 is Dom0Kind.PVH)
        Daemon(LinuxHost(), xen, hotplug, options, settings, log, watch).run()


def watch_by(source: str, *, pvh: bool) -> Watch:
    """Open the source of this name; one that cannot be had here becomes a finding."""
    obeys = not pvh  # vPCI stands between a PVH dom0 and the hardware and drops writes to BARs that decode
    if source == "kprobe":
        return open_watch(KprobeSource, source, obeys=obeys)
    if source == "xentrace":
        regions = regions_from_mcfg(read_listed("/", f"{TABLES}/MCFG") or b"")
        return open_watch(lambda: XentraceSource(regions, pvh=pvh), source, obeys=obeys)
    return no_watch()
