# Makes what an HVM guest boots: /root/hvm/initrd, from dom0's own kernel modules and busybox, and its settings
# /root/hvm/guest.cfg. Words: the PCI function as xl writes it, the address and the router of the guest's network.
# IntMode=1 (no MSI-X): Xen prepares MSI-X for a guest by PHYSDEVOP_prepare_msix only, which a PVH dom0 may not
# call (Xen arch/x86/hvm/hypercall.c, hvm_physdev_op); its device model gets ENODATA.
set -e
device=$1 address=$2 router=$3
folder=/root/hvm; root=$folder/root
rm -rf $folder; mkdir -p $root/bin $root/modules $root/proc $root/sys
cp /bin/busybox $root/bin/
modprobe --show-depends e1000e | while read -r _ file _; do
    name=$(basename "$file" | sed 's/\.ko.*/.ko/')
    case $file in
    *.xz) python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' "$file" ;;
    *) cat "$file" ;;
    esac > $root/modules/"$name"
    echo "$name" >> $root/modules/order
done
cat > $root/init <<END
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
while read -r name; do
    words=
    [ \$name = e1000e.ko ] && words=IntMode=1
    busybox insmod /modules/\$name \$words
done < /modules/order
busybox sleep 2
name=\$(busybox ls /sys/bus/pci/drivers/e1000e/0000:*/net)
busybox ip addr add $address dev \$name
busybox ip link set \$name up
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    busybox ping -c 1 -W 3 $router && busybox echo guest: the router answers && break
    busybox sleep 1
done
busybox grep \$name /proc/interrupts
busybox echo guest: the end
while :; do busybox sleep 1000; done
END
chmod +x $root/init
(cd $root && find . | busybox cpio -o -H newc) | gzip -1 > $folder/initrd
cat > $folder/guest.cfg <<END
name = "pcipt-guest"
type = "hvm"
memory = 256
vcpus = 1
kernel = "/boot/vmlinuz-$(uname -r)"
ramdisk = "$folder/initrd"
cmdline = "console=ttyS0 quiet mitigations=off"
serial = "file:$folder/console"
vga = "none"
nographic = 1
pci = [ "$device" ]
END
