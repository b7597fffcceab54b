"""``python3 -m installer``: run the install and say by the exit status what init is to do next."""

from __future__ import annotations

import sys
from pathlib import Path

from installer.errors import InstallError
from installer.install import install
from installer.kernel_arguments import parse
from installer.progress import Progress, write_console

REBOOT = 0
DONE = 10  # installed, but no reboot was asked for
FAILED = 1


def main() -> int:
    """Install this machine; every failure is reported, and none is an exception."""
    try:
        arguments = parse(Path("/proc/cmdline").read_text())
    except InstallError as error:  # there is nobody to report to
        write_console(f"pvmlab: FAILED: {error.cause}\n")
        return FAILED
    progress = Progress(arguments.report_url, write=write_console)
    try:
        config = install(arguments, progress)
    except InstallError as error:
        progress.failed(error)
        return FAILED
    except Exception as error:  # noqa: BLE001 (the last line of defence: a fault of ours is reported like any other)
        import traceback  # noqa: PLC0415 (a sixth of all import time, for what should never happen)

        lines = traceback.format_exception(error)
        progress.failed(InstallError(f"fault in the installer: {error!r}", lines="".join(lines).splitlines()))
        return FAILED
    progress.done(f"{config.distro} is installed on {config.disk_serial or config.disk}")
    return REBOOT if config.reboot_on_success else DONE


if __name__ == "__main__":
    sys.exit(main())
