#!/bin/sh
# docs/findings/vtd-queue-resume.md says what the last answers mean. QEMU is ended after 5 seconds.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null -device "intel-iommu,intremap=off,aw-bits=48" <<'END'
writeq 0x1e0000 0xf
writeq 0xfed90090 0x1e0000
writel 0xfed90018 0x4000000
writeq 0xfed90088 0x10
readl 0xfed90034
writeq 0x1e0000 0x700000025
writeq 0x1e0008 0x1f0000
writel 0xfed90034 0x10
readl 0xfed90034
readq 0xfed90080
readl 0x1f0000
writeq 0xfed90088 0x10
readq 0xfed90080
readl 0x1f0000
END
