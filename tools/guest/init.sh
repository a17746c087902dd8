#!/bin/busybox sh
# The only program of the guest: does the work that the kernel command line names, then turns the
# machine off. Prints one "guest: STEP ok|FAILED" line per step.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /tmp /mnt

step() { # NAME COMMAND...: run it and say how it went
    name=$1
    shift
    if "$@" >/tmp/out 2>&1; then
        echo "guest: $name ok"
    else
        cat /tmp/out
        echo "guest: $name FAILED"
    fi
}

option() { # NAME: print the value of dmarewind.NAME= on the kernel command line
    for word in $(cat /proc/cmdline); do
        case $word in dmarewind.$1=*) echo "${word#*=}" ;; esac
    done
}

modules() { # insmod in the order that the image was made with
    while read -r module; do
        insmod "/modules/$module.ko" || return 1
    done </modules/order
}

wait_for() { # PATH: wait up to 5 s for it
    for _ in $(seq 50); do
        [ -e "$1" ] && return 0
        usleep 100000
    done
    return 1
}

slot() { # BDF FILE: the path of a device's file
    echo "/sys/bus/pci/devices/0000:$1/$2"
}

block() { # write, read back and compare MIB mebibytes past the page cache, in two request sizes
    mib=$(option mib)
    wait_for /dev/vda || return 1
    dd if=/dev/urandom of=/tmp/data bs=1M count="$mib" || return 1
    sum=$(md5sum </tmp/data)
    for size in 64k 4k; do
        dd if=/tmp/data of=/dev/vda bs=$size oflag=direct conv=fsync || return 1
        sync
        echo 3 >/proc/sys/vm/drop_caches
        back=$(dd if=/dev/vda bs=$size iflag=direct count=$((mib * 1024 / ${size%k})) | md5sum)
        [ "$back" = "$sum" ] || return 1
    done
    # Through the page cache, which reads ahead and writes back in pieces of its own choice.
    dd if=/tmp/data of=/dev/vda bs=1M conv=fsync || return 1
    echo 3 >/proc/sys/vm/drop_caches
    [ "$(dd if=/dev/vda bs=1M count="$mib" | md5sum)" = "$sum" ]
}

net() { # ping the emulated router and fetch a file over UDP from its TFTP server
    wait_for /sys/class/net/eth0 || return 1
    ip link set eth0 up
    ip addr add 10.0.2.15/24 dev eth0
    for _ in $(seq 50); do
        [ "$(cat /sys/class/net/eth0/carrier)" = 1 ] && break
        usleep 100000
    done
    ping -c 5 -i 0.1 -s 1400 10.0.2.2 || return 1
    tftp -g -b 1400 -l /tmp/fetched -r payload 10.0.2.2 || return 1
    [ "$(md5sum </tmp/fetched)" = "$(md5sum </payload)" ]
}

driver_rebind() { # BDF: take the driver away and give it back
    driver=$(readlink -f "$(slot "$1" driver)")
    echo "0000:$1" >"$driver/unbind" && echo "0000:$1" >"$driver/bind"
}

remove_rescan() { # BDF: take the device out of the bus and find it again
    echo 1 >"$(slot "$1" remove)" && echo 1 >/sys/bus/pci/rescan
}

reboot_once() { # start the machine anew, unless the mark behind the data says it was done
    mib=$(option mib)
    wait_for /dev/vda || return 1
    [ "$(dd if=/dev/vda bs=1M skip="$mib" count=1 | head -c 8)" = rebooted ] && return 0
    echo rebooted | dd of=/dev/vda bs=1M seek="$mib" conv=fsync
    sync
    reboot -f
}

# Give a device without a driver its decoders and bus mastering (PCI command register, offset 4).
switch_on() {
    printf '\006' | dd of="$(slot "$1" config)" bs=1 seek=4 conv=notrunc
}

bar0() {
    head -n 1 "$(slot "$1" resource)" | cut -d' ' -f1
}

edu_dma() { # ADDRESS COMMAND: let the edu device copy 8 bytes; 1 reads memory, 3 writes it
    bar=$(bar0 "$edu")
    if [ "$2" = 1 ]; then source=$1 target=0x40000; else source=0x40000 target=$1; fi
    devmem $((bar + 0x80)) 64 "$source"
    devmem $((bar + 0x88)) 64 "$target"
    devmem $((bar + 0x90)) 64 8
    devmem $((bar + 0x98)) 64 "$2"
    for _ in $(seq 20); do # the transfer starts 100 ms later
        usleep 50000
        [ $(($(devmem $((bar + 0x98)) 64) & 1)) = 0 ] && return 0
    done
    return 1
}

faults() { # make devices access what nobody mapped
    edu=$(option edu)
    nic=$(option nic)
    switch_on "$edu" || return 1
    # Unmapped, in several pages; twice the same; unaligned; beyond the domain's width.
    for address in 0x1000000 0x1000000 0x1001000 0x7fffff8 0x12345678 0xfffffffff000 \
        0x1000000000000; do
        edu_dma $address 1 || return 1
        edu_dma $address 3 || return 1
    done
    # The network card, without its driver: descriptor ring at an unmapped address.
    echo "0000:$nic" >"$(slot "$nic" driver/unbind)"
    switch_on "$nic" || return 1
    bar=$(bar0 "$nic")
    devmem $((bar + 0x3800)) 32 0x2000000 # TDBAL
    devmem $((bar + 0x3804)) 32 0         # TDBAH
    devmem $((bar + 0x3808)) 32 4096      # TDLEN
    devmem $((bar + 0x3810)) 32 0         # TDH
    devmem $((bar + 0x0400)) 32 0x2       # TCTL.EN
    devmem $((bar + 0x3818)) 32 4         # TDT: four descriptors to fetch
    usleep 200000
    # Linux prints what the unit told it.
    dmesg | grep -q 'DMAR:.*fault addr\|virtio_iommu.* fault '
}

group_type() { # BDF TYPE: change the kind of domain that a device is in
    driver=$(readlink -f "$(slot "$1" driver)")
    echo "0000:$1" >"$driver/unbind" || return 1
    echo "$2" >"$(slot "$1" iommu_group/type)" || return 1
    echo "0000:$1" >"$driver/bind"
}

# BAR 4 of the virtio-iommu: its config space begins at 0x2000, `bypass` is at 36.
bypass_of_unit() { # VALUE
    for device in /sys/bus/pci/devices/*; do
        [ "$(cat "$device/device")" = 0x1057 ] || continue
        bar=$(sed -n 5p "$device/resource" | cut -d' ' -f1)
        devmem $((bar + 0x2024)) 8 "$1" && return
    done
    return 1
}

bypass() { # switch config.bypass off and on, and move devices between both kinds of domains
    blk=$(option blk)
    bypass_of_unit 0 || return 1
    group_type "$blk" DMA && block || return 1
    bypass_of_unit 1 || return 1
    group_type "$(option nic)" DMA && net || return 1
    group_type "$blk" identity && block || return 1
    bypass_of_unit 0 && bypass_of_unit 1
}

virtio_faults() { # the same behind a virtio-iommu, and before it knows the device
    edu=$(option edu)
    bypass_of_unit 0 || return 1
    switch_on "$edu" || return 1
    edu_dma 0x1000000 1 && edu_dma 0x1000000 3 || return 1
    # A driver that does nothing: Linux puts the device into a domain.
    echo pci-stub >"$(slot "$edu" driver_override)"
    echo "0000:$edu" >/sys/bus/pci/drivers/pci-stub/bind || return 1
    faults && bypass_of_unit 1
}

affinity() { # send each interrupt to the second processor, and back, while the disk is in use
    for processor in 1 0 1; do
        for irq in /proc/irq/[0-9]*; do
            # Some are tied to one processor.
            echo $processor >"$irq/smp_affinity_list" || true
        done
        dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct || return 1
    done
}

edu_msi() { # ADDRESS DATA: let the edu device write a message
    for place in "68 $1" "72 0" "76 $2"; do
        set -- $place
        printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($2 & 255)) $(($2 >> 8 & 255)) \
            $(($2 >> 16 & 255)) $(($2 >> 24 & 255)))" |
            dd of="$(slot "$edu" config)" bs=1 seek="$1" conv=notrunc || return 1
    done
    bar=$(bar0 "$edu")
    devmem $((bar + 0x60)) 32 1 # raise
    devmem $((bar + 0x64)) 32 1 # and acknowledge
    usleep 50000 # Linux handles the fault
}

interrupts() { # messages for entries that are absent or another device's, and of the old format
    edu=$(option edu)
    switch_on "$edu" || return 1
    # The MSI capability is the first: enable it.
    [ "$(dd if="$(slot "$edu" config)" bs=1 skip=64 count=1 | od -An -tu1)" -eq 5 ] || return 1
    printf '\001' | dd of="$(slot "$edu" config)" bs=1 seek=66 conv=notrunc || return 1
    for index in 0 1 2 3 4 5 6 7 8 9 10 16 32 100 32767; do
        edu_msi $((0xfee00010 | index << 5)) 0 || return 1
    done
    edu_msi 0xfee00018 4 || return 1          # a subhandle
    edu_msi $((0xfee00018 | 1 << 5)) 0x10001  # and one with reserved bits
    edu_msi $((0xfee0001c | 32767 << 5)) 2    # 0xffff and 2: more than 16 bits
    edu_msi 0xfee00000 0x50                   # compatibility format: an interrupt that nobody wants
    # Linux prints what the unit told it.
    dmesg | grep -q 'INTR-REMAP.*fault index'
}

step modules modules
for work in $(option work | tr , ' '); do
    case $work in
    rebind) step rebind-block driver_rebind "$(option blk)" && step rebind-net driver_rebind "$(option nic)" ;;
    reboot) step reboot reboot_once ;;
    hotplug) step hotplug-block remove_rescan "$(option blk)" && step hotplug-net remove_rescan "$(option nic)" ;;
    virtio-faults) step virtio-faults virtio_faults ;;
    *) step "$work" "$work" ;;
    esac
done
echo "guest: done"
poweroff -f
