"""Run a real QEMU, stopped before its first instruction, and speak qtest and QMP with it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

QEMU = "qemu-system-x86_64"
REGISTERS = 0xFED9_0000
ROOT, CONTEXT, LEVEL3, LEVEL2, LEVEL1, QUEUE, STATUS = (
    0x10_0000 + page * 0x1000 for page in range(7)
)
BAR = 0xFE00_0000
DEVICE = 0x18
MAPPED, TARGET, UNMAPPED = 0x20_3000, 0x15_5000, 0x40_0000


class Vm:
    """Hold one process; both sockets are handed over as descriptors, nothing has a name."""

    def __init__(self, *arguments: str) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        (qtest, qtest_far), (qmp, qmp_far) = pairs
        command = [
            *(QEMU, "-M", "q35,kernel-irqchip=split", "-accel", "tcg", "-S", "-m", "64M"),
            *("-nodefaults", "-display", "none", "-no-user-config"),
            *("-chardev", f"socket,id=q,fd={qtest_far.fileno()}", "-qtest", "chardev:q"),
            *("-chardev", f"socket,id=m,fd={qmp_far.fileno()}", "-mon", "m,mode=control"),
            *arguments,
        ]
        far = (qtest_far.fileno(), qmp_far.fileno())
        self._process = subprocess.Popen(command, pass_fds=far, stderr=subprocess.DEVNULL)
        self._sockets = (qtest, qmp)
        self._qtest, self._qmp = (near.makefile("rwb") for near in self._sockets)
        qtest_far.close()
        qmp_far.close()
        for near in self._sockets:
            near.settimeout(30)
        self._qmp.readline()
        self.qmp("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.qmp("quit")
        else:
            self._process.kill()
        for stream in (self._qtest, self._qmp, *self._sockets):
            stream.close()
        self._process.wait(30)

    def qmp(self, execute: str, **arguments: object) -> Any:
        message = {"execute": execute, "arguments": arguments}
        self._qmp.write(json.dumps(message).encode() + b"\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            if "error" in answer:
                raise RuntimeError(str(answer["error"]))
            if "return" in answer:
                return answer["return"]

    def qtest(self, command: str) -> str:
        self._qtest.write(command.encode() + b"\n")
        self._qtest.flush()
        while True:
            answer = self._qtest.readline().decode().strip()
            if not answer.startswith("IRQ"):
                return answer


def translate(vm: Vm) -> None:
    """Set up legacy translation and let a device meet a mapped page and an unmapped one."""

    def register(offset: int, width: str, value: int) -> None:
        assert vm.qtest(f"write{width} {REGISTERS + offset:#x} {value:#x}") == "OK"

    def quadword(address: int, value: int) -> None:
        assert vm.qtest(f"writeq {address:#x} {value:#x}") == "OK"

    def configure(offset: int, value: int) -> None:
        vm.qtest(f"outl 0xcf8 {0x8000_0000 | DEVICE << 8 | offset:#x}")
        vm.qtest(f"outl 0xcfc {value:#x}")

    vm.qtest("clock_step")  # refused: only the qtest accelerator has it
    vm.qtest(f"readq {REGISTERS + 8:#x}")
    register(0x38, "l", 0x8000_0000)
    vm.qtest(f"memset {ROOT:#x} 0x20 0x0")
    quadword(ROOT, CONTEXT | 1)
    # Address width 1 is a walk of three levels; the domain is 5.
    entry = (LEVEL3 | 1).to_bytes(8, "little") + (5 << 8 | 1).to_bytes(8, "little")
    vm.qtest(f"write {CONTEXT + DEVICE * 16:#x} 0x10 0x{entry.hex()}")
    quadword(LEVEL3, LEVEL2 | 3)
    quadword(LEVEL2 + (MAPPED >> 21 & 511) * 8, LEVEL1 | 3)
    quadword(LEVEL1 + (MAPPED >> 12 & 511) * 8, TARGET | 3)
    register(0x20, "q", ROOT)
    register(0x18, "l", 0x4000_0000)
    register(0x88, "q", 0)
    register(0x90, "q", QUEUE)
    register(0x18, "l", 0x0400_0000)
    queue = [0x11, 0, 0x12, 0, 0x7_0000_0025, STATUS]
    body = b"".join(word.to_bytes(8, "little") for word in queue)
    vm.qtest(f"write {QUEUE:#x} {len(body):#x} 0x{body.hex()}")
    register(0x88, "q", len(body))
    vm.qtest(f"readl {STATUS:#x}")
    register(0x18, "l", 0x8400_0000)
    vm.qtest(f"readl {REGISTERS + 0x1C:#x}")
    configure(0x10, BAR)
    configure(0x04, 6)
    # The network card's self test writes 8 bytes where its PORT register is told.
    for address in (MAPPED, UNMAPPED):
        vm.qtest(f"writel {BAR + 8:#x} {address | 1:#x}")
    vm.qtest(f"readl {REGISTERS + 0x34:#x}")
    vm.qtest(f"read {TARGET:#x} 0x10")


def record(directory: Path, *arguments: str) -> tuple[Path, Path]:
    """Run translate(); give the qtest log and the trace log."""
    qtest_log, trace_log = directory / "qtest.log", directory / "trace.log"
    with Vm(
        *("-device", "intel-iommu", "-device", f"i82559er,addr={DEVICE >> 3}"),
        *("-qtest-log", str(qtest_log), "-trace", "vtd_*", "-D", str(trace_log)),
        *arguments,
    ) as vm:
        translate(vm)
    return qtest_log, trace_log
