#!/bin/sh
# docs/findings/vtd-canonical-width.md says what the last answers mean. QEMU is ended after 5 seconds.
# On 11.1: SCALABLE=scalable-mode FIRST=fsts.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null \
    -device "intel-iommu,intremap=off,aw-bits=48,${SCALABLE:-x-scalable-mode}=on,${FIRST:-x-flts}=on" \
    -device rtl8139,addr=4 <<'END'
outl 0xcf8 0x80002014
outl 0xcfc 0xfe000000
outl 0xcf8 0x80002004
outw 0xcfc 6
writew 0xfe0000e0 1
writeb 0xfe000037 4
writeq 0x100000 0x101001
writeq 0x101400 0x105001
writeq 0x105000 0x106001
writeq 0x106000 0x49
writeq 0x106008 0x1
writeq 0x106010 0x102000
writeq 0x102008 0x103007
writeq 0x103010 0x104007
writeq 0x104000 0x107007
writeq 0x107000 0x3c5007
writeq 0x107008 0x3c6007
writeq 0xfed90020 0x100400
writel 0xfed90018 0x40000000
writel 0xfed90018 0x80000000
writeq 0x3c5000 0x5a5a5a5a5a5a5a5a
writel 0xfe000014 0x80
writel 0xfe000010 0x80000008
readq 0x3c5000
readl 0xfed90034
writel 0xfed90018 0x0
writeq 0x106000 0x45
writel 0xfed90018 0x40000000
writel 0xfed90018 0x80000000
writeq 0x3c6000 0x5a5a5a5a5a5a5a5a
writel 0xfe000010 0x80001008
readq 0x3c6000
readl 0xfed90034
readq 0xfed90228
END
