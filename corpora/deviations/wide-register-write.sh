#!/bin/sh
# wide-register-write: an 8-byte write to FECTL, IECTL or IEADDR aborts (a35c5755d942)
# Seen on QEMU 10.0.2. Each line is a qtest command; QEMU is ended after 5 s.
timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M -qtest stdio -qtest-log /dev/null \
    -device intel-iommu,intremap=off,aw-bits=48,snoop-control=on,fs1gp=off <<'END'
writeq 0xfed90038 0xd2d03eb5af0514d6
readl 0xfed90034
readl 0xfed90034
readq 0xfed90220
readq 0xfed90228
END
