#!/bin/sh
# compatibility-format-status: GCMD.CFI is ignored: GSTS.CFIS stays 0
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device intel-iommu,intremap=on,aw-bits=48 <<'END'
writeq 0xfed900b8 0x200000
writel 0xfed90018 0x1000000
writel 0xfed90018 0x2000000
writel 0xfed90018 0x2800000
readl 0xfed9001c
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
