#!/bin/sh
# docs/findings/vtd-upper-event-address.md says what the last answers mean. QEMU is ended after 5 seconds.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null -device "intel-iommu,intremap=on,aw-bits=48,eim=on" <<'END'
readq 0xfed90010
writel 0xfed90044 0x1
readl 0xfed90044
writel 0xfed900ac 0x1
readl 0xfed900ac
END
