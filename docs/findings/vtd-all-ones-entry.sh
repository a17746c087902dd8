#!/bin/sh
# docs/findings/vtd-all-ones-entry.md says what the last answers mean. QEMU is ended after 5 seconds.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null -device "intel-iommu,intremap=off,aw-bits=48" \
    -device rtl8139,addr=4 <<'END'
outl 0xcf8 0x80002014
outl 0xcfc 0xfe000000
outl 0xcf8 0x80002004
outw 0xcfc 6
writew 0xfe0000e0 1
writeb 0xfe000037 4
writeq 0x100000 0x101001
writeq 0x101200 0x102001
writeq 0x101208 0x101
writeq 0x102000 0xfffffffffffffffe
writeq 0xfed90020 0x100000
writel 0xfed90018 0x40000000
writel 0xfed90018 0x80000000
writel 0xfe000014 0x0
writel 0xfe000010 0x1008
readl 0xfed90034
readq 0xfed90228
writel 0xfed9022c 0x80000000
writeq 0x102000 0xffffffffffffffff
writel 0xfe000010 0x1008
readl 0xfed90034
readq 0xfed90228
END
