#!/bin/sh
# docs/findings/vtd-source-of-dma.md says what the last answers mean. QEMU is ended after 5 seconds.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null -device "intel-iommu,intremap=on,aw-bits=48" \
    -device edu,addr=4 -device i82559er,addr=5 -trace vtd_ir_remap_msi <<'END'
outl 0xcf8 0x80002010
outl 0xcfc 0xfe000000
outl 0xcf8 0x80002004
outw 0xcfc 6
outl 0xcf8 0x80002040
outw 0xcfe 1
outl 0xcf8 0x80002044
outl 0xcfc 0xfee00010
outl 0xcf8 0x80002810
outl 0xcfc 0xfe100000
outl 0xcf8 0x80002804
outw 0xcfc 6
writeq 0x100000 0x630001
writeq 0x100008 0x41234
writeq 0xfed900b8 0x100002
writel 0xfed90018 0x1000000
writel 0xfed90018 0x2000000
writel 0xfe000060 1
readl 0xfed90034
readq 0xfed90228
writel 0xfed9022c 0x80000000
writel 0xfe100008 0xfee00011
readl 0xfed90034
readq 0xfed90228
END
