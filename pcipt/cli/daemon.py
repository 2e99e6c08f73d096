"""Run the service: keep Xen's list of PCI functions true until told to stop.

systemd starts it (systemd/pcipt.service). With --replay it runs on a recorded machine with a simulated Xen
and prints what it does.
"""

import argparse

from pcipt.service.daemon import Daemon, Options
from pcipt.service.keeper import STATE_DIRECTORY
from pcipt.service.lock import only_one
from pcipt.service.logs import start_logging
from pcipt.service.protocol import SOCKET_PATH
from pcipt.service.server import refuse_taken
from pcipt.service.settings import PATH, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", metavar="FILE", help=f"settings file ({PATH}, if it is there)")
    parser.add_argument("--check-settings", action="store_true", help="only read the settings, then stop")
    parser.add_argument(
        "--state", default=STATE_DIRECTORY, metavar="DIR", help=f"state directory ({STATE_DIRECTORY})"
    )
    parser.add_argument(
        "--socket", default=SOCKET_PATH, metavar="PATH", help=f"control socket to listen on ({SOCKET_PATH})"
    )
    parser.add_argument(
        "--replay", metavar="DIR", help="run on the machine recorded in DIR, with a simulated Xen"
    )
    parser.add_argument("--dom0", choices=("pv", "pvh"), help="with --replay: the kind of dom0 to simulate")


def run(args: argparse.Namespace) -> int:
    options = Options(args.socket, args.state, args.settings or PATH, args.settings is not None)
    settings = read_settings(options.settings, required=options.settings_required)
    if args.check_settings:
        print(f"{options.settings}: mode {settings.mode}")
        return 0
    log = start_logging()
    with only_one(args.state):
        refuse_taken(args.socket)  # before anything is done to Xen
        if args.replay:
            from pcipt.service.replay import Replay

            replay = Replay(args.replay, args.dom0)
            daemon = Daemon(replay.host, replay.xen, replay.hotplug, options, settings, log)
            daemon.run(lambda: replay.play(daemon.settle, lambda about: log.info("recording", step=about)))
            return 0
        from pcipt.service.live import run_live

        run_live(options, settings, log)
    return 0
