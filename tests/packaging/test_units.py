"""The units, as systemd reads them: no complaint, few rights, each line of the sandbox with its reason."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from pcipt.daemon.control.protocol import SOCKET_PATH

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = REPOSITORY / "systemd"

#  section, key, value: what the rest of the project relies on
SERVICE = (
    ("Unit", "ConditionPathExists", "/dev/xen/privcmd"),  # skipped outside dom0
    ("Unit", "StartLimitBurst", "10"),
    ("Service", "Type", "notify"),
    ("Service", "NotifyAccess", "main"),
    ("Service", "Restart", "on-failure"),
    ("Service", "WatchdogSec", "60"),
    ("Service", "StateDirectory", "pcipt"),
    ("Service", "RuntimeDirectory", "pcipt"),
    ("Service", "LogsDirectory", "pcipt"),
    ("Service", "CapabilityBoundingSet", "CAP_SYS_ADMIN CAP_SYSLOG"),
    ("Service", "DeviceAllow", "/dev/kmsg r"),  # the last of several
)
POLICY = (
    ("Unit", "ConditionPathExists", "/dev/xen/privcmd"),
    ("Unit", "Requires", "pcipt.service"),
    ("Unit", "Before", "xendomains.service"),
    ("Service", "ExecStart", "/usr/bin/pcipt policy apply"),
    ("Service", "SuccessExitStatus", "4"),
)
SOCKET = (
    ("Unit", "ConditionPathExists", "/dev/xen/privcmd"),
    ("Socket", "ListenStream", SOCKET_PATH),
    ("Socket", "SocketMode", "0660"),
    ("Socket", "SocketGroup", "pcipt"),
)


def read_unit(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string((UNITS / name).read_text())
    return parser


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("pcipt.service", SERVICE), ("pcipt-policy.service", POLICY), ("pcipt.socket", SOCKET)],
)
def test_what_others_rely_on(name, wanted):
    unit = read_unit(name)
    assert [(section, key, unit[section].get(key)) for section, key, _ in wanted] == list(wanted)


def test_systemd_has_no_complaint_and_gives_few_rights(tool):
    tool("systemd-analyze", "systemd")
    done = subprocess.run(
        ["sh", "scripts/check-units.sh"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    level = float(re.search(r"exposure level for pcipt\.service: ([0-9.]+)", done.stdout)[1])
    assert level <= 2.5


def test_each_line_of_the_sandbox_has_its_reason():
    """A comment stands above every line from UMask on, or above the one of the same key before it."""
    lines = (UNITS / "pcipt.service").read_text().splitlines()
    begin, end = lines.index("UMask=0077"), lines.index("[Install]")
    unexplained = []
    for number in range(begin, end):
        key, above = lines[number].partition("=")[0], lines[number - 1]
        explained = above.startswith("#") or above.partition("=")[0] == key
        if re.match(r"[A-Z]\w+=", lines[number]) and not explained:
            unexplained.append(lines[number])
    assert unexplained == []
