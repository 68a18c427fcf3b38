"""Is KVM on this machine usable? Asked by running a few million guest instructions, never by looking at /dev/kvm.

A /dev/kvm may be there and be worse than none: under a hypervisor that does not pass on virtualisation, some
kernels emulate every instruction of a guest that was not made for them, a hundred times slower than QEMU's own
emulation, and libvirt offers "kvm" all the same. So a loop of two instructions runs in a virtual machine of 4 MiB,
first in real mode, then in 64-bit mode with paging: hardware does some hundred million rounds a second, such a
kernel about one. Only the kernel's own interface is used, no QEMU; the answer takes 0.1 s with hardware KVM and at
most half a second for each mode without.

`usable` asks in a child process, because a KVM that hangs must not hang the agent. Nothing is remembered: the
machine may be another one after a reboot.
"""

import ctypes
import fcntl
import mmap
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from types import FrameType
from typing import Literal

from cumulet.core.config import Config

DEVICE = "/dev/kvm"
CHILD_SECONDS = 5.0
ROUNDS = 100_000_000
ROUNDS_PER_SECOND = 50e6  # well above emulation, well below hardware
MODE_SECONDS = 0.4

_KVM_CREATE_VM, _KVM_GET_VCPU_MMAP_SIZE, _KVM_CREATE_VCPU = 0xAE01, 0xAE04, 0xAE41
_KVM_SET_USER_MEMORY_REGION, _KVM_SET_TSS_ADDR = 0x4020AE46, 0xAE47
_KVM_RUN, _KVM_GET_REGS, _KVM_SET_REGS = 0xAE80, 0x8090AE81, 0x4090AE82
_KVM_GET_SREGS, _KVM_SET_SREGS = 0x8138AE83, 0x4138AE84

_MEMORY = 4 << 20
_CODE, _STACK = 0x8000, 0x7000
_LOOP_16 = bytes.fromhex("664975fcf4")  # dec ecx; jnz -4; hlt
_LOOP_64 = bytes.fromhex("48ffc975fbf4")  # dec rcx; jnz -5; hlt
_PML4, _PDPT, _PD = 0x1000, 0x2000, 0x3000
_PRESENT_WRITABLE, _HUGE = 0x3, 0x80
_SEGMENT = struct.Struct("<QIH9Bx")  # base limit selector | type present dpl db s l g avl unusable
_CONTROL_AT = 8 * _SEGMENT.size + 2 * 16  # cr0 follows eight segments and two descriptor tables
_SREGS_SIZE, _REGS = 312, struct.Struct("<18Q")
_RCX, _RSP, _RIP, _RFLAGS = 2, 6, 16, 17


def usable() -> bool:
    """Whether guests should run on KVM here."""
    if platform.machine() != "x86_64" or not os.access(DEVICE, os.R_OK | os.W_OK):
        return False
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cumulet.host.kvm"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def virt_type(config: Config) -> Literal["kvm", "qemu"]:
    """The kind of domain to make: what the operator says, else what the probe finds."""
    if config.compute.virt_type == "auto":
        return "kvm" if usable() else "qemu"
    return "kvm" if config.compute.virt_type == "kvm" else "qemu"


def measure(long_mode: bool) -> float:
    """Rounds per second of the loop. Raises OSError when the machine cannot be made."""
    kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    descriptors = [kvm]
    try:
        machine = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
        descriptors.append(machine)
        memory = mmap.mmap(-1, _MEMORY)
        _fill(memory, long_mode)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(machine, _KVM_SET_TSS_ADDR, 0x10000000)
        fcntl.ioctl(machine, _KVM_SET_USER_MEMORY_REGION, struct.pack("IIQQQ", 0, 0, 0, _MEMORY, address))
        cpu = fcntl.ioctl(machine, _KVM_CREATE_VCPU, 0)
        descriptors.append(cpu)
        mmap.mmap(cpu, fcntl.ioctl(kvm, _KVM_GET_VCPU_MMAP_SIZE, 0))
        _set_registers(cpu, long_mode)
        seconds = _run(cpu)
        registers = bytearray(_REGS.size)
        fcntl.ioctl(cpu, _KVM_GET_REGS, registers)
        return (ROUNDS - int(_REGS.unpack(registers)[_RCX])) / seconds
    finally:
        for descriptor in reversed(descriptors):
            os.close(descriptor)


def _fill(memory: mmap.mmap, long_mode: bool) -> None:
    code = _LOOP_64 if long_mode else _LOOP_16
    memory[_CODE : _CODE + len(code)] = code
    if long_mode:  # the first 4 MiB mapped onto themselves by two pages of 2 MiB
        struct.pack_into("<Q", memory, _PML4, _PDPT | _PRESENT_WRITABLE)
        struct.pack_into("<Q", memory, _PDPT, _PD | _PRESENT_WRITABLE)
        struct.pack_into("<QQ", memory, _PD, _HUGE | 3, 0x200000 | _HUGE | 3)


def _set_registers(cpu: int, long_mode: bool) -> None:
    special = bytearray(_SREGS_SIZE)
    fcntl.ioctl(cpu, _KVM_GET_SREGS, special)
    if long_mode:
        _SEGMENT.pack_into(special, 0, 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0)
        for number in range(1, 6):
            _SEGMENT.pack_into(special, number * _SEGMENT.size, 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0)
        # cr0: paging and protection; cr3; cr4: PAE; cr8; EFER: long mode enabled and active
        struct.pack_into("<QQQQQQ", special, _CONTROL_AT, 0x80000011, 0, _PML4, 0x20, 0, 0x500)
    else:
        _SEGMENT.pack_into(special, 0, 0, 0xFFFF, 0, 11, 1, 0, 0, 1, 0, 0, 0, 0)
    fcntl.ioctl(cpu, _KVM_SET_SREGS, bytes(special))
    general = [0] * 18
    general[_RCX], general[_RSP], general[_RIP], general[_RFLAGS] = ROUNDS, _STACK, _CODE, 2
    fcntl.ioctl(cpu, _KVM_SET_REGS, _REGS.pack(*general))


def _run(cpu: int) -> float:
    """Run until the loop ends or the time is up; the CPU time that took, so that a busy machine is not blamed."""

    def time_is_up(_: int, __: FrameType | None) -> None:
        raise TimeoutError  # an exception, for the call is restarted otherwise

    signal.signal(signal.SIGALRM, time_is_up)
    started = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_REAL, MODE_SECONDS)
        fcntl.ioctl(cpu, _KVM_RUN, 0)
    except (TimeoutError, InterruptedError):
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return max(time.process_time() - started, 1e-9)


def main() -> int:
    """0 when both modes are quick."""
    for long_mode in (False, True):
        try:
            rate = measure(long_mode)
        except OSError as error:
            print(f"{DEVICE}: {error}")
            return 1
        print(f"{'64-bit' if long_mode else 'real'} mode: {rate / 1e6:.1f} million rounds a second")
        if rate < ROUNDS_PER_SECOND:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
