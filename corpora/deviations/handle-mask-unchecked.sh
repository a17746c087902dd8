#!/bin/sh
# handle-mask-unchecked: an interrupt-entry invalidation with IM above ECAP.MHMV is no error
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device intel-iommu,intremap=on,aw-bits=48 <<'END'
writeq 0x1e0000 0xff8000014
writeq 0x1e0010 0xc15f400000025
writeq 0x1e0018 0x1f07d4
writeq 0xfed90090 0x1e0000
writel 0xfed90018 0x4000000
writeq 0xfed90088 0x20
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
