"""Phase 2: ask the boot handler what to install."""

from __future__ import annotations

from contracts.arch import Arch
from contracts.document import DocumentError, loads
from contracts.install import InstallerConfig
from installer.client import RESTART_WITHIN, fetch
from installer.errors import InstallError
from installer.kernel_arguments import KernelArguments

_LIMIT = 64 * 1024  # bytes


def load(arguments: KernelArguments) -> InstallerConfig:
    """Return the configuration of this machine.

    :raises InstallError: if it cannot be had, is not valid, or is another machine's.
    """
    return parse(
        fetch(arguments.config_url, limit=_LIMIT, within=RESTART_WITHIN), mac=arguments.mac, arch=Arch.of_host()
    )


def parse(body: bytes, *, mac: str, arch: Arch) -> InstallerConfig:
    """Return the configuration in *body*, which must be for the machine with this *mac* and *arch*.

    :raises InstallError: listing every fault.
    """
    try:
        config = loads(InstallerConfig, body)
    except DocumentError as error:
        raise InstallError("the configuration is not valid", lines=error.faults) from None
    if config.mac != mac:
        raise InstallError(f"the configuration is for {config.mac}, this machine is {mac}")
    if config.arch is not arch:
        raise InstallError(f"the configuration is for {config.arch}, this machine is {arch}")
    return config
