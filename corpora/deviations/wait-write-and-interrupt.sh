#!/bin/sh
# wait-write-and-interrupt: a wait descriptor that asks for a status write and an interrupt aborts
# (e8145dcd31)
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device intel-iommu,intremap=off,aw-bits=48 <<'END'
writeq 0x1e0000 0xffffff0700000035
writeq 0xfed90090 0x1e0000
writel 0xfed90018 0x4000000
writeq 0xfed90088 0x10
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
