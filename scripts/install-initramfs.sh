#!/bin/sh
# Installs below $1 what keeps devices for guests at boot: the shell that does it, and the hooks of initramfs-tools
# and dracut.
set -eu
to=$1 from=$(dirname "$0")/../initramfs
for each in keep.sh boot.sh; do install -D -m 755 "$from/$each" "$to/usr/lib/pcipt/$each"; done
share=$to/usr/share/initramfs-tools
install -D -m 755 "$from/initramfs-tools/hook" "$share/hooks/pcipt"
install -D -m 755 "$from/initramfs-tools/init-top" "$share/scripts/init-top/pcipt"
install -D -m 644 "$from/initramfs-tools/conf-hook" "$share/conf-hooks.d/pcipt"
for each in module-setup.sh keep-hook.sh; do
    install -D -m 755 "$from/dracut/90pcipt/$each" "$to/usr/lib/dracut/modules.d/90pcipt/$each"
done
