"""Runs the daemon on this machine: its Linux, its Xen, hot-plug messages and configuration writes."""

from typing import Any

from pcipt.host.live import LinuxHost
from pcipt.host.uevents import UeventSource
from pcipt.service.daemon import Daemon, Options
from pcipt.service.settings import Settings
from pcipt.service.watcher import no_watch, open_watch
from pcipt.watch.kprobe import KprobeSource
from pcipt.xen.interface import Dom0Kind
from pcipt.xen.libxc import open_libxc


def run_live(options: Options, settings: Settings, log: Any) -> None:
    """Open everything, run until told to stop, and close everything.

    Raises: UnsupportedError where this is no dom0 of a Xen, or the kernel sends no hot-plug messages.
    """
    with open_libxc() as xen:
        # Both sources are opened before the first reading, so that nothing falls in between.
        hotplug = UeventSource()
        # vPCI stands between a PVH dom0 and the hardware and drops writes to BARs that decode.
        obeys = xen.identity.dom0 is Dom0Kind.PV
        watched = settings.watch_source == "kprobe"
        watch = open_watch(KprobeSource, "kprobe", obeys=obeys) if watched else no_watch()
        Daemon(LinuxHost(), xen, hotplug, options, settings, log, watch).run()
