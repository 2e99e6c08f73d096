"""What the dom0 image is made of. Its fingerprint names the cached image: a changed word builds it anew."""

from __future__ import annotations

import hashlib
import json

from .cell import XEN, Suite

#: Raise it when `image.py` treats the same recipe in another way.
EDITION = 3

HOST_PACKAGES = ("qemu-system-x86", "mmdebstrap", "e2fsprogs", "debian-archive-keyring")

#: What a small Debian needs to build pcipt's package (debian/control says the same).
BUILD_PACKAGES = (
    *("dpkg-dev", "build-essential", "debhelper", "dh-python", "pybuild-plugin-pyproject", "python3-dev"),
    *("python3-attr", "python3-cffi", "python3-pyroute2", "python3-setuptools", "python3-structlog"),
    "python3-wheel",
)

GUEST_PACKAGES = (
    # the machine; `guest_packages` adds its release of Xen
    *("linux-image-amd64", "xen-utils-common"),
    *(
        "busybox-static",
        "systemd",
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "procps",
        "iproute2",
        "util-linux",
    ),
    # what pcipt's package depends on and recommends
    *("python3-attr", "python3-cffi-backend", "python3-pyroute2", "python3-structlog", "pci.ids"),
    # what the scenes need
    *("python3-pytest", "python3-hypothesis", "pciutils", "strace", "jq", "xenstore-utils"),
)

#: What an HVM guest needs, where a PVH dom0 can give it a device: from Xen 4.20 and Linux 6.12 on.
MORE_PACKAGES: dict[Suite, tuple[str, ...]] = {"bookworm": (), "trixie": ("qemu-system-xen", "seabios")}

#: They cost boot time and serve nobody here; a getty on hvc0 would hang up the console under the scenes.
MASKED_UNITS = (
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
    ),
    *("e2scrub_reap.service", "systemd-timesyncd.service", "systemd-pstore.service", "xendomains.service"),
    *(
        "getty@tty1.service",
        "serial-getty@hvc0.service",
        "serial-getty@ttyS0.service",
        "serial-getty@ttyS1.service",
    ),
    *("systemd-logind.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount"),
    *("modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@fuse.service", "modprobe@loop.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-tmpfiles-clean.timer"),
    *("systemd-journal-flush.service", "systemd-random-seed.service"),
)

AGENT_UNIT = """\
[Unit]
Description=The lab's hands in dom0
After=basic.target
[Service]
ExecStart=/usr/local/sbin/pcipt-lab-start
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-900
"""

#: Only what PCI scenes need gets a udev event at boot; the hundreds of ttys and processors would take 20 s.
COLDPLUG = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=subsystems --action=add --subsystem-match=pci
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=pci --subsystem-match=block \
 --subsystem-match=net --subsystem-match=nvme --subsystem-match=xen --subsystem-match=misc
"""

#: The payload disk is a bare tar archive: no file system to make on the host, none to mount here.
START = """\
#!/bin/sh
disk=/dev/disk/by-id/ata-QEMU_HARDDISK_pcipt-payload
[ -e $disk ] || udevadm settle --timeout=60
mkdir -p /srv/lab
[ -e /srv/lab/agent.py ] || tar -xf $disk -C /srv/lab
exec python3 /srv/lab/agent.py
"""

FILES: dict[str, tuple[int, str]] = {
    "etc/fstab": (0o644, "LABEL=rootfs / ext4 defaults 0 0\n"),
    "etc/hostname": (0o644, "pcipt-lab\n"),
    # The machine boots with an initial RAM disk of the lab's; making another one takes minutes there.
    "etc/initramfs-tools/update-initramfs.conf": (0o644, "update_initramfs=no\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost pcipt-lab\n"),
    # A machine without an id would take its first boot's time to make one and to preset every unit.
    "etc/machine-id": (0o444, "70636970740000000000000000006c62\n"),
    "etc/modules-load.d/xen.conf": (0o644, "xen-privcmd\nxen-evtchn\nxen-gntdev\n"),
    "etc/systemd/journald.conf.d/lab.conf": (0o644, "[Journal]\nStorage=volatile\nRateLimitBurst=0\n"),
    "etc/systemd/system/pcipt-lab.service": (0o644, AGENT_UNIT),
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": (0o644, COLDPLUG),
    "usr/local/sbin/pcipt-lab-start": (0o755, START),
}

INITRD_MODULES = ("ahci", "sd_mod", "ext4")

INIT = """\
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
while read -r module; do busybox insmod "$module"; done < /modules
tries=0
until root=$(busybox findfs LABEL=rootfs 2>/dev/null); do
    tries=$((tries + 1))
    if [ $tries -gt 600 ]; then echo "pcipt-lab: no file system is labelled rootfs"; exit 1; fi
    busybox usleep 100000
done
busybox mount -t ext4 -o rw,noatime "$root" /root
busybox umount /proc /sys
busybox mount --move /dev /root/dev
exec busybox switch_root /root /sbin/init
"""

LINKS: dict[str, str] = {
    "etc/systemd/system/multi-user.target.wants/pcipt-lab.service": "../pcipt-lab.service",
    "etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
    **{f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED_UNITS},
}

DRIVERS = "/lib/modules/*/kernel/drivers"
LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"),
    *(f"{DRIVERS}/{kind}/*" for kind in ("gpu", "media", "infiniband", "staging", "net/wireless")),
    "/lib/modules/*/kernel/sound/*",
)


def guest_packages(suite: Suite) -> tuple[str, ...]:
    """List what is installed in the dom0 of a release."""
    return (
        *GUEST_PACKAGES,
        *MORE_PACKAGES[suite],
        f"xen-hypervisor-{XEN[suite]}-amd64",
        f"xen-utils-{XEN[suite]}",
    )


def fingerprint(suite: Suite) -> str:
    """Name the recipe of a release in twelve hex digits."""
    whole = [EDITION, suite, guest_packages(suite), FILES, INITRD_MODULES, INIT, LINKS, LEFT_OUT]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]
