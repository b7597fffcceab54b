"""The boot handler as a process of its own: ``python -m tests.fakes.handler_process ROOT PORT SUBNET``.

*ROOT* is as :func:`tests.fakes.lab_files.make_settings` makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contracts.lan import Lan
from pxeboot_stack import logs
from pxeboot_stack.boot_handler.server import make_server
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles


def main(root: Path, port: int, subnet: str) -> None:
    """Serve until SIGTERM."""
    logs.configure("boot_handler")
    shares = HostShares(root)
    make_server(Settings.of_shares(shares, Lan(subnet=subnet), RunFiles(root / "run")), port=port).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
