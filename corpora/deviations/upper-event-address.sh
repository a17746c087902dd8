#!/bin/sh
# upper-event-address: FEUADDR and IEUADDR stay 0 in a unit with extended interrupt mode, too
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device "intel-iommu,intremap=on,aw-bits=48,eim=on,${SCALABLE:-x-scalable-mode}=on" <<'END'
writel 0xfed90044 0x1
readl 0xfed90044
writel 0xfed900ac 0x1
readl 0xfed900ac
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
