"""A sysfs of two functions, and shell scripts that play xl and modprobe on it."""

import stat

from pcipt.cli import main
from tests.trees import add

NIC, DISK = "0000:00:03.0", "0000:00:04.0"

# What `trouble-WHAT` says happens:
# refuse (with words), silent (without), half (unbound only), unfit, stuck (let out only), nothing.
XL = """#!/bin/sh
root={root}
echo "$@" >> {root}/xl.log
for device; do :; done
trouble=$(cat {root}/trouble-$device 2>/dev/null)
link=$root/sys/bus/pci/devices/$device/driver
noted=$root/noted-$device
case $trouble in
refuse) echo "libxl: error: first"; echo "libxl: error: it cannot" >&2; exit 1 ;;
silent) exit 3 ;;
nothing) exit 0 ;;
unfit) # bound, but Xen refuses the quarantine; xl takes nothing back that is not quarantined
    [ $1 = pci-assignable-add ] && ln -sfn ../../../bus/pci/drivers/pciback $link
    echo "libxl: error: failed to quarantine" >&2; exit 1 ;;
stuck) [ $1 = pci-assignable-remove ] && {{ echo "libxl: error: still bound" >&2; exit 1; }} ;;
half) rm -f $link; echo "libxl: error: half way" >&2; exit 1 ;;
esac
case $1 in
pci-assignable-add)
    case $(readlink $link) in *pciback) exit 0 ;; esac
    [ -L $link ] && basename $(readlink $link) > $noted && rm $link
    ln -s ../../../bus/pci/drivers/pciback $link ;;
pci-assignable-remove)
    rm -f $link
    [ $2 = -r ] && [ -f $noted ] && ln -s ../../../bus/pci/drivers/$(cat $noted) $link && rm $noted
    true ;;
esac
"""
MODPROBE = """#!/bin/sh
root={root}
echo modprobe "$@" >> {root}/xl.log
[ $(cat $root/trouble-xen-pciback 2>/dev/null) = shared ] 2>/dev/null && {{
    mkdir $root/sys/bus/pci/drivers/pciback
    touch $root/sys/bus/pci/drivers/pciback/0000:00:07.0; exit 0; }}
[ -f $root/trouble-xen-pciback ] && {{ echo "modprobe: FATAL: not found" >&2; exit 1; }}
case $1 in
-r) rmdir $root/sys/bus/pci/drivers/pciback ;;
*) mkdir $root/sys/bus/pci/drivers/pciback ;;
esac
"""
MOUNTS = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


REGION = {"start": "0x7fff0000", "size": 0x4000, "mapped": "withdrawn"}


def told(owner="quarantine", actions=(), **more):
    """Make what the daemon answers about the NIC."""
    answer = {"version": 1, "sbdf": NIC, "owner": owner, "owner_told": True, "regions": [REGION]}
    return {**answer, "actions": list(actions), **more}


#  of a daemon with which all goes well
ANSWERS = {
    "Status": {"findings": [], "given_away": []},
    "Rmrr": {"regions": [], "findings": []},
    "Guests": {"version": 1, "guests": [], "findings": []},
    "Release": told(),
    "Reclaim": told(kind="start"),
    "Admit": told(),
}


class FakeToolstack:
    """`root` is a machine with a NIC, and a disk that carries the root file system."""

    def __init__(self, root):
        self.root = root
        self.path = None
        for address in (NIC, DISK):
            add(root, f"pci0000:00/{address}", reset_method="flr\n")
        for path, text in (
            ("proc/self/mountinfo", MOUNTS),
            ("sys/class/tty/console/active", "hvc0\n"),
            ("sys/bus/pci/drivers/e1000e/bind", ""),
            ("sys/bus/pci/drivers_probe", ""),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "sys/dev/block").mkdir(parents=True)
        (root / "sys/dev/block/8:1").symlink_to(f"../../devices/pci0000:00/{DISK}/ata1/block/sda/sda1")
        self.drive(NIC, "e1000e")

    def drive(self, address, driver):
        link = self.root / "sys/bus/pci/devices" / address / "driver"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../../bus/pci/drivers/{driver}")

    def driver(self, address):
        link = self.root / "sys/bus/pci/devices" / address / "driver"
        return link.readlink().name if link.is_symlink() else None

    def make(self, trouble, what):
        (self.root / f"trouble-{what}").write_text(trouble)

    def run(self, command, *arguments):
        """Run release or reclaim on this machine, with the daemon at `path`."""
        module, parser = main.make_parser(command)
        args = parser.parse_args([*arguments, "--socket", self.path])
        args.root = str(self.root)
        return module.run(args)

    def log(self):
        file = self.root / "xl.log"
        return file.read_text().splitlines() if file.exists() else []


def fake_toolstack(directory, monkeypatch):
    """Make one, with its commands before all others."""
    fake = FakeToolstack(directory / "machine")
    commands = directory / "commands"
    commands.mkdir()
    for name, text in (("xl", XL), ("modprobe", MODPROBE)):
        (commands / name).write_text(text.format(root=fake.root))
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return fake
