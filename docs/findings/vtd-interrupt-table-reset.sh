#!/bin/sh
# docs/findings/vtd-interrupt-table-reset.md says what the last answers mean. QEMU is ended after 5 seconds.
edu() {
    cat <<'END'
outl 0xcf8 0x80002010
outl 0xcfc 0xfe000000
outl 0xcf8 0x80002004
outw 0xcfc 6
outl 0xcf8 0x80002040
outw 0xcfe 1
outl 0xcf8 0x80002044
outl 0xcfc 0xfee00010
outl 0xcf8 0x8000204c
outw 0xcfc 0
END
}
{
    edu
    cat <<'END'
writeq 0x200000 0x630001
writeq 0xfed900b8 0x200007
writel 0xfed90018 0x1000000
writel 0xfed90018 0x2000000
outb 0xcf9 0x2
outb 0xcf9 0x6
END
    sleep 1
    edu
    cat <<'END'
readq 0xfed900b8
readl 0xfed9001c
writel 0xfed90018 0x2000000
writel 0xfe000060 1
readl 0xfed90034
readq 0xfed90228
END
} | timeout 5 "${QEMU:-qemu-system-x86_64}" -nodefaults -display none -S -accel tcg -machine q35 -m 4M \
    -qtest stdio -qtest-log /dev/null -device "intel-iommu,intremap=on,aw-bits=48" \
    -device edu,addr=4 -trace vtd_ir_remap_msi
