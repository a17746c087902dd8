#!/bin/sh
# pasid-cache-ignored: a PASID-cache invalidation is not looked at: its reserved bits are no error,
# and a device keeps passing through that did when its context entry was invalidated
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device "intel-iommu,intremap=off,aw-bits=48,${SCALABLE:-x-scalable-mode}=on" <<'END'
writeq 0x1e0000 0x37
writeq 0x1e0008 0x100000
writeq 0xfed90090 0x1e0800
writel 0xfed90018 0x4000000
writeq 0xfed90088 0x20
readq 0xfed90080
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
