"""Run the service: keep Xen's list of PCI functions correct until the service is stopped.

systemd starts the service (pcipt.service). With --replay the service runs on a recorded machine with a
simulated Xen and prints what it does.

Exit codes: 0 stopped by a signal, 1 the service cannot start.
"""

import argparse

from pcipt.daemon.control.protocol import SOCKET_PATH
from pcipt.daemon.setting_keys import KEYS, toml_from_value
from pcipt.daemon.settings import PATH, Settings, read_settings
from pcipt.daemon.store import STATE_DIRECTORY
from pcipt.host.policy.policy_files import DIRECTORY
from pcipt.host.policy.settings_file import entries_in, read_document

EXAMPLES = (
    ("pcipt daemon --check-settings", "check the settings; the service does not start"),
    (
        "pcipt daemon --replay machine --state /tmp/state --socket /tmp/control",
        "run on a recorded machine, without Xen",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", metavar="FILE", help=f"settings file; default: {PATH}, if it exists")
    parser.add_argument(
        "--check-settings", action="store_true", help="only read the settings and print all of them"
    )
    parser.add_argument(
        "--state", default=STATE_DIRECTORY, metavar="DIR", help=f"state directory; default: {STATE_DIRECTORY}"
    )
    parser.add_argument(
        "--socket",
        default=SOCKET_PATH,
        metavar="PATH",
        help=f"control socket to listen on; default: {SOCKET_PATH}",
    )
    parser.add_argument(
        "--replay", metavar="DIR", help="run on the machine recorded in DIR, with a simulated Xen"
    )
    parser.add_argument("--dom0", choices=("pv", "pvh"), help="with --replay: the kind of dom0 to simulate")


def print_settings(settings: Settings) -> None:
    """Print every setting in effect as a settings file, in the order of KEYS.

    A value that is not the default has a comment with the default.
    """
    for key in KEYS:
        value = settings.value_of(key.name)
        default = "" if value == key.default else f"  # default: {toml_from_value(key.default)}"
        print(f"{key.name} = {toml_from_value(value)}{default}")


def run(args: argparse.Namespace) -> int:
    path, required = args.settings or PATH, args.settings is not None
    settings = read_settings(path, required=required)
    if args.check_settings:
        entries_in(read_document(path), path)  # what it says of the policy
        print_settings(settings)
        return 0
    return _serve(args, settings, path, required=required)


def _serve(args: argparse.Namespace, settings: Settings, path: str, *, required: bool) -> int:
    """Run the daemon on this machine, or on a recorded one (--replay), until SIGTERM or SIGINT; return 0.

    Raises: InputError if another daemon runs, if the socket cannot be used, or if the recording cannot be
            played; MalformedError if a file of the recording is malformed;
            UnsupportedError if this is not a dom0 of Xen; NotPermittedError if Xen may not be opened.
    """
    # imported here because it takes long, and --check-settings does not need it
    from pcipt.daemon.control.listener import passed_listener, refuse_taken
    from pcipt.daemon.daemon import Daemon, Options
    from pcipt.daemon.lock import only_one
    from pcipt.daemon.telling.log import start_logging

    listener, policy = passed_listener(), None if args.replay else DIRECTORY
    log = start_logging(settings.log_level)
    with only_one(args.state) as unusable:
        options = Options(args.socket, args.state, path, required, listener, unusable, policy)
        if options.listener is None:
            refuse_taken(args.socket)  # before anything is changed in Xen
        if args.replay:
            from pcipt.daemon.replay.recording import Replay

            replay = Replay(args.replay, args.dom0)
            daemon = Daemon(replay.host, replay.xen, replay.hotplug, options, settings, log)
            daemon.run(
                lambda: replay.play(
                    daemon.settle, lambda about: log.info("recording", step=about), daemon.lose_writes
                )
            )
            return 0
        from pcipt.daemon.live import run_live

        run_live(options, settings, log)
    return 0
