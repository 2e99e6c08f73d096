#!/bin/sh
# Do what the list of pcipt says, before udev loads drivers: keep functions for guests (keep.sh), give them to
# xen-pciback, and let it guard the policed ports (hotplug.below).
#   boot.sh [ROOT]     sys, etc, dev and run are below ROOT. What happened goes to the kernel's log, what was kept to
#                      /run/pcipt.caught, and the ports that xen-pciback guards to /run/pcipt.guarded
root=${1-} sys=$root/sys list=$root/etc/pcipt/passthrough.list

tell() { echo "<5>pcipt: $*" > "$root/dev/kmsg"; }

# Set $value to the first line of the file $1 of the hypervisor, or to nothing.
ask() { value= && [ -r "$sys/hypervisor/$1" ] && read -r value < "$sys/hypervisor/$1"; }

# Where is the driver for guests? It is another one before it is loaded.
find_driver() {
    driver=
    for each in "$sys"/bus/pci/drivers/*pciback; do [ ! -d "$each" ] || driver=$each; done
    [ -n "$driver" ]
}

# Would xen-pciback take the host down if Xen could not set up a function that it gets? With a PVH dom0 from Xen 4.20
# on it resets the function at once. The service asks Xen before it gives anything to it.
is_dangerous() {
    ask guest_type && [ "$value" = PVH ] || return 1
    ask version/major && major=$value && ask version/minor || return 0
    case $major$value in *[!0-9]*) return 0 ;; esac
    [ "$major" -gt 4 ] || { [ "$major" -eq 4 ] && [ "$value" -ge 20 ]; }
}

# Without Xen there are no guests: nothing is kept.
ask type && [ "$value" = xen ] && [ -r "$list" ] || exit 0
kept= ports=
set -- $(sh "${0%/*}/keep.sh" "$sys" "$list")
while [ $# -gt 2 ]; do
    about="kept for guests: $1"
    case $1 in
    kept) kept="$kept $2" && echo "$2" >> "$root/run/pcipt.caught" ;;
    port) ports="$ports $2" about="policed port:" ;;
    noport) about="policed port, but no port is there:" ;;
    esac
    tell "$about $2 $3"
    shift 3
done
[ -n "$kept$ports" ] || exit 0

if is_dangerous; then
    tell "xen-pciback is left to the service: nothing guards ports before it starts"
    exit 0
fi
# The functions above have the driver's name already, so nothing else gets them, whatever comes first.
modprobe xen-pciback 2> /dev/null
if ! find_driver; then
    tell "xen-pciback cannot be loaded: no driver has what is kept until it is, and nothing guards ports"
    exit 0
fi
# It takes each function below such a port that appears from now on, unless a driver comes before it that was
# registered earlier. What is there already is not offered to it: dom0 may run from it.
for each in $ports; do
    if echo "$each" 2> /dev/null > "$driver/new_slot"; then
        echo "$each" >> "$root/run/pcipt.guarded"
    else
        tell "port $each is not guarded: xen-pciback refuses it"
    fi
done
# Where it is built in, nobody offers it what was named for it later.
for each in $kept; do
    [ -e "$sys/bus/pci/devices/$each/driver" ] || echo "$each" 2> /dev/null > "$sys/bus/pci/drivers_probe"
done
