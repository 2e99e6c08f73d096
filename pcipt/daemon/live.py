"""The daemon on this machine: its Linux, its Xen, hot-plug messages and configuration writes."""

from typing import Any

from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import Watch, no_watch, open_watch
from pcipt.engine.views.protection import read_mmcfg
from pcipt.host.live import LinuxHost
from pcipt.host.uevents import UeventSource
from pcipt.watch.kprobe import KprobeSource
from pcipt.watch.xentrace_live import XentraceSource
from pcipt.xen.interface import Dom0Kind
from pcipt.xen.libxc import open_libxc


def run_live(options: Options, settings: Settings, log: Any) -> None:
    """Open Xen and the event sources, run the daemon until SIGTERM or SIGINT, and close Xen.

    Raises: UnsupportedError if this is not a dom0 of Xen, or if the kernel sends no hot-plug messages;
            NotPermittedError if this process may not open Xen; HypervisorError if Xen cannot be opened for
            another reason; the errors of `Daemon` and of `Daemon.run`.
    """
    with open_libxc() as xen:
        # Both sources are opened before the machine is read, so that no event is missed.
        hotplug = UeventSource()
        watch = watch_by(settings.watch_source, pvh=xen.identity.dom0 is Dom0Kind.PVH)
        Daemon(LinuxHost(), xen, hotplug, options, settings, log, watch).run()


def watch_by(source: str, *, pvh: bool) -> Watch:
    """Return a watch on the source of configuration writes that `source` names: kprobe, xentrace or none.

    Any other word counts as none. `pvh` is True if dom0 is PVH. If the source cannot be opened, the watch
    sees no writes and has a finding that says why.
    """
    obeys = not pvh  # on PVH, vPCI drops a write to a BAR that decodes, so hardware does not get it
    if source == "kprobe":
        return open_watch(KprobeSource, source, obeys=obeys)
    if source == "xentrace":
        regions = read_mmcfg(LinuxHost())
        return open_watch(lambda: XentraceSource(regions, pvh=pvh), source, obeys=obeys)
    return no_watch()
