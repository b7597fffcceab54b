"""Machine architectures and the names the world gives them."""

from __future__ import annotations

import enum
import platform

BIOS_BINARY = "undionly.kpxe"  # iPXE that uses the network card by its firmware's driver (UNDI)
BIOS_CLIENT_ARCHITECTURE = 0  # DHCP option 93


class Arch(enum.StrEnum):
    """An architecture, by the kernel's name (``uname -m``)."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @classmethod
    def of_host(cls) -> Arch:
        """Return the architecture of this machine.

        :raises ValueError: if pvmlab has no name for it.
        """
        name = platform.machine()
        return cls({"arm64": "aarch64", "amd64": "x86_64"}.get(name, name))

    @property
    def debian(self) -> str:
        """Debian's architecture name."""
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64"}[self]

    @property
    def efi(self) -> str:
        """The suffix of EFI loader names, as in ``BOOTX64.EFI`` (UEFI specification 3.5.1.1)."""
        return {Arch.X86_64: "x64", Arch.AARCH64: "aa64"}[self]

    @property
    def serial_device(self) -> str:
        """The kernel's name of the first serial port of the QEMU machine we use."""
        return {Arch.X86_64: "ttyS0", Arch.AARCH64: "ttyAMA0"}[self]

    @property
    def ipxe_binary(self) -> str:
        """The file name of the iPXE EFI program in the TFTP root."""
        return f"ipxe-{self}.efi"

    @property
    def dhcp_client_architectures(self) -> tuple[int, ...]:
        """The DHCP option 93 codes of its UEFI firmware (RFC 4578; 9 is the obsolete code for x86-64)."""
        return {Arch.X86_64: (7, 9), Arch.AARCH64: (11,)}[self]

    @property
    def http_client_architecture(self) -> int:
        """The DHCP option 93 code of its UEFI firmware when it boots by HTTP (IANA, processor architecture types)."""
        return {Arch.X86_64: 16, Arch.AARCH64: 19}[self]
