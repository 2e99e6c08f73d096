#!/bin/bash
# Put the list of functions that are kept for guests into the initramfs, with what reads it. See pcipt(1), policy.

check() {
    # The files may have been edited since the list was written.
    command -v pcipt > /dev/null && ! pcipt policy compile > /dev/null && dwarning "pcipt: the list is the old one"
    [[ -s /etc/pcipt/passthrough.list ]]
}

depends() {
    return 0
}

# The driver that has what is kept, and that guards policed ports; also where it is not loaded now.
installkernel() {
    hostonly='' instmods xen-pciback
}

install() {
    inst_multiple od
    inst_simple /etc/pcipt/passthrough.list
    inst_simple /usr/lib/pcipt/keep.sh
    inst_simple /usr/lib/pcipt/boot.sh
    # Before udev, which loads drivers. dracut sources what it runs.
    inst_hook pre-udev 10 "$moddir/keep-hook.sh"
}
