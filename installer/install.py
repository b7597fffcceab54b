"""The seven phases, in order, each named before it begins."""

from __future__ import annotations

import contextlib
from pathlib import Path

from contracts.install import InstallerConfig
from contracts.report import Phase
from installer import bootloader, configuration, disk, kernel, network, payload, seed, setup, system
from installer.errors import InstallError
from installer.kernel_arguments import KernelArguments
from installer.progress import Progress

_MB = 1_000_000


def install(arguments: KernelArguments, progress: Progress) -> InstallerConfig:
    """Install this machine and return the configuration it was done by.

    If a phase fails after the disk was touched, its partition table is wiped: nothing half-installed boots.

    :raises InstallError: if a phase fails; *progress* knows which.
    """
    unpacked = payload.start_measuring(Path("/"))
    progress.begin(Phase.NETWORK, f"bringing up {arguments.mac}")
    progress.say(network.configure(arguments.mac))

    progress.begin(Phase.CONFIGURATION, f"asking {arguments.config_url}")
    config = configuration.load(arguments)
    progress.url = config.report_url
    progress.say(_verify_kernel(config, progress))
    progress.say(payload.verify(unpacked, config))

    progress.begin(Phase.SEED, f"fetching {config.seed_url}")
    documents = seed.load(config.seed_url)

    progress.begin(Phase.DISK, f"preparing {config.disk_serial or config.disk}")
    device = disk.find(config.disk, config.disk_serial)
    progress.say(disk.require(device))
    layout = disk.plan(device, config.arch)
    try:
        disk.prepare(layout)
        with disk.mounted(layout) as root:
            _install_system(config, layout, documents, progress, root=root)
    except Exception:
        with contextlib.suppress(InstallError):  # the first error is the one to tell
            disk.wipe(Path(layout.device))
        raise
    return config


def _verify_kernel(config: InstallerConfig, progress: Progress) -> str:
    """While this asks the server, the tree is measured."""
    source = config.kernel
    if source is None:
        return "the boot script is a person's own: which kernel it is to start is not known, and not checked"
    return kernel.verify(
        source,
        running=kernel.running_name(),
        on_progress=lambda taken: progress.advance(
            taken / source.size, f"checking the kernel, {taken / _MB:.0f} of {source.size / _MB:.0f} MB"
        ),
    )


def _install_system(
    config: InstallerConfig, layout: disk.Layout, documents: seed.Seed, progress: Progress, *, root: Path
) -> None:
    size = config.rootfs.size
    progress.begin(Phase.SYSTEM, f"streaming {config.rootfs.url}, {size / _MB:.0f} MB")
    system.unpack(
        config.rootfs,
        root,
        on_progress=lambda taken: progress.advance(taken / size, f"{taken / _MB:.0f} of {size / _MB:.0f} MB"),
    )

    progress.begin(Phase.SETUP, f"making it {config.name}.{config.domain}")
    setup.apply(config, layout, documents, root)

    progress.begin(Phase.BOOTLOADER, "copying the bootloader")
    progress.say(bootloader.install(layout, config.kernel_args, root))
    progress.say("unmounting")
