#!/bin/sh
# page-response-refused: a page group response is an error where the unit takes no page requests;
# the specification does not say that it is one
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device "intel-iommu,intremap=off,aw-bits=48,${SCALABLE:-x-scalable-mode}=on,${FIRST:-x-flts}=on" <<'END'
writeq 0x1e0000 0x9
writeq 0xfed90090 0x1e0800
writel 0xfed90018 0x4000000
writeq 0xfed90088 0x20
readq 0xfed90080
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
