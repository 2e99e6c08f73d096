#!/bin/sh
# Keep dom0's drivers from the functions that are kept for guests, before any driver is loaded (boot.sh runs it).
#   keep.sh [SYS LIST]...      SYS is where sysfs is, LIST what `pcipt policy` writes; prints what happened
# LIST is explained in pcipt/pci/policy/compiled.py. A function that is at the place and is what was expected gets
# driver_override, so that no driver but pciback probes it. What is not certain is left alone. Of a policed port only
# the address is printed, as `port`; `noport` means that no port is there.

# Set $at to the directory of the function at $2 (segment:bus) $3 (hops) below the host bridge $1, or fail.
find_place() {
    at=
    for root in "$sys"/devices/pci*:*; do
        name=${root##*/pci} wanted=$2
        if [ "$1" != - ]; then
            wanted=$1
            [ -r "$root/firmware_node/path" ] && read -r name < "$root/firmware_node/path"
        fi
        [ "$name" = "$wanted" ] || continue
        [ -z "$at" ] || return 1 # two of one name
        at=$root
    done
    [ -d "$at" ] || return 1
    segment=${at##*/pci} bus=${at##*:} left=$3/
    segment=${segment%:*}
    while :; do
        hop=${left%%/*} left=${left#*/} above=$at at=
        wanted=$((0x$bus + 0x${hop%%:*}))
        for below in "$above/$segment":??:"${hop#*:}"; do
            number=${below#"$above/$segment":}
            [ -d "$below" ] && [ $((0x${number%%:*})) -eq $wanted ] && at=$below
        done
        [ -n "$at" ] || return 1
        [ -n "$left" ] || return 0
        bus=
        for number in "$at"/pci_bus/*:*; do bus=${number##*:}; done
        case $bus in [0-9a-f][0-9a-f]) ;; *) return 1 ;; esac
    done
}

# Has the file $1 of the function what is expected, $2?
is() {
    value=
    [ "$2" = - ] || { [ -r "$at/$1" ] && read -r value < "$at/$1" && [ "$value" = "$2" ]; }
}

# Find capability $1 in a list: mask of its id, place and mask of the pointer to the next, offset of the first, registers.
find_capability() {
    id=$1 id_mask=$2 bits=$3 next_mask=$4 offset=$5 steps=0
    shift 5
    while [ "$offset" -ge 64 ] && [ $((offset / 4 + 3)) -le $# ] && [ "$steps" -lt 960 ]; do
        eval "header=\${$((offset / 4 + 1))}"
        [ $((0x$header & id_mask)) -ne "$id" ] || return 0
        offset=$((0x$header >> bits & next_mask)) steps=$((steps + 1))
    done
    return 1
}

# Is the Device Serial Number $1? PCI Express Base 6.0, 7.9.3: extended capability 3. It is none if there is no such
# capability, and not known if extended registers of PCI Express (capability 10) cannot be read.
is_serial() {
    [ "$1" != - ] || return 0
    wanted=$1 value=unknown
    set -- $(od -An -v -tx4 "$at/config" 2> /dev/null)
    [ "$1" != ffffffff ] && [ $# -ge 64 ] || return 1
    if find_capability 3 0xffff 20 0xffc 256 "$@"; then
        eval "value=\${$((offset / 4 + 3))}\${$((offset / 4 + 2))}"
    elif [ $# -gt 64 ] || ! find_capability 16 0xff 8 0xfc $((0x${14} & 0xfc)) "$@"; then
        value=none
    fi
    case $value in 0000000000000000 | ffffffffffffffff) value=none ;; esac
    [ "$value" = "$wanted" ]
}

# Do what the list $1 says.
keep() {
    driver=pciback
    for each in "$sys"/bus/pci/drivers/*pciback; do [ -d "$each" ] && driver=${each##*/}; done
    while read -r bridge where hops vendor device subvendor subdevice revision class serial; do
        case $bridge in '#'* | '') continue ;; esac
        word=mismatch absent=absent
        [ "$vendor" != port ] || word=noport absent=noport
        if ! find_place "$bridge" "$where" "$hops"; then
            word=$absent at=-
        elif [ "$vendor" = port ]; then
            [ ! -d "$at/pci_bus" ] || word=port
        elif is vendor "$vendor" && is device "$device" && is subsystem_vendor "$subvendor" &&
            is subsystem_device "$subdevice" && is revision "$revision" && is class "$class" && is_serial "$serial"; then
            word=late
            [ -e "$at/driver" ] || { echo "$driver" 2> /dev/null > "$at/driver_override" && word=kept || word=failed; }
        fi
        echo "$word ${at##*/} $where/$hops"
    done < "$1"
}

while [ $# -gt 1 ]; do sys=$1 && keep "$2" && shift 2; done
