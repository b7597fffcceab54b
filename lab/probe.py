"""The smallest guests there are: firmware images that prove an accelerator runs code, and then end QEMU.

A device file proves nothing: ``/dev/kvm`` may be there and QEMU abort as soon as a processor is made, or its first
exit to QEMU hang (nested and half-emulated virtualisation does both). So the probe goes the way of a real boot:
processor made, code run from ROM, page tables in memory, 64-bit mode, CPUID, a device written to.
"""

from __future__ import annotations

import dataclasses

from contracts.arch import Arch

_ROM_SIZE = 64 << 10


@dataclasses.dataclass(frozen=True)
class Probe:
    """A guest that ends by itself.

    :ivar machine: QEMU's machine type. :ivar rom: the firmware image.
    :ivar options: the devices it speaks to. :ivar returncode: QEMU's exit status when it succeeds.
    """

    machine: str
    rom: bytes
    options: tuple[str, ...]
    returncode: int


def probe_for(arch: Arch) -> Probe:
    """Return the probe guest for *arch*."""
    return {Arch.X86_64: _X86_64, Arch.AARCH64: _AARCH64}[arch]


# Assembled with GNU as at f000:f000. Page tables are made at 0x1000: the first 2 MiB are mapped to themselves.
_X86_64_CODE = bytes.fromhex(
    "fa 31c0 8ed8 8ed0"  # cli; xor ax,ax; mov ds,ax; mov ss,ax
    "66c706001003200000"  # mov dword [0x1000], 0x2003      PML4[0]
    "66c706002003300000"  # mov dword [0x2000], 0x3003      PDPT[0]
    "66c706003083000000"  # mov dword [0x3000], 0x83        PD[0]: a 2 MiB page
    "66b800100000 0f22d8"  # mov eax, 0x1000; mov cr3, eax
    "66b820000000 0f22e0"  # mov eax, 0x20; mov cr4, eax     PAE
    "66b9800000c0 0f32"  # mov ecx, 0xc0000080; rdmsr        EFER
    "660d00010000 0f30"  # or eax, 0x100; wrmsr              LME
    "2e660f011698f0"  # lgdt cs:[0xf098]
    "0f20c0 660d01000080 0f22c0"  # mov eax, cr0; or eax, 0x80000001; mov cr0, eax   PG, PE
    "66ea5ff00f000800"  # jmp 8:0xff05f                      64-bit from here
    "b810000000 8ed8 8ed0 bc00800000"  # mov eax, 16; mov ds, eax; mov ss, eax; mov esp, 0x8000
    "31c0 0fa2 53 58 4839d8 7504"  # xor eax, eax; cpuid; push rbx; pop rax; cmp rax, rbx; jne stop
    "b010 e6f4"  # mov al, 0x10; out 0xf4, al                QEMU ends with 2 * 0x10 + 1
    "f4 ebfd 90"  # stop: hlt; jmp stop
    "0000000000000000 00000000009a2000 0000000000920000"  # the GDT: null, code (64-bit), data
    "1700 80f00f00"  # its limit and its address, 0xff080
)


def _x86_64_rom() -> bytes:
    rom = bytearray(b"\xf4" * _ROM_SIZE)  # hlt
    rom[0xF000 : 0xF000 + len(_X86_64_CODE)] = _X86_64_CODE
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea00f000f0")  # the reset vector: jmp f000:f000
    return bytes(rom)


_AARCH64_CODE = bytes.fromhex(
    "0120a1d2 62098052 22000039"  # movz x1, #0x900, lsl 16; movz w2, #'K'; strb w2, [x1]    the PL011's data register
    "00018052 0080b072 020000d4"  # movz w0, #8; movk w0, #0x8400, lsl 16; hvc #0             PSCI SYSTEM_OFF
    "00000014"  # b .
)

_X86_64 = Probe("q35", _x86_64_rom(), ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"), returncode=33)
_AARCH64 = Probe("virt", _AARCH64_CODE.ljust(_ROM_SIZE, b"\0"), ("-serial", "null"), returncode=0)
