"""The tests of the services in their container, once more: in host mode, with the lab's switch in between."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.integration.host_mode.conftest import HostStack
from tests.integration.pxeboot_stack.test_stack import *  # noqa: F403 (all of them, also those of tomorrow)
from tests.integration.pxeboot_stack.test_stack import ENDING

del test_sigterm_ends_all_of_it  # noqa: F821 (it wants connections refused: here the network goes, too)


def test_sigterm_ends_it_and_its_network(stack: HostStack) -> None:
    pids = [stack.find_pid(name) for name in ("dnsmasq", "nginx", "boot_handler", "watcher")]
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(timeout=ENDING) == 0, stack.text[-2000:]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    with pytest.raises(OSError, match=r"."):
        stack.client.call(socket.create_connection, ("192.168.100.1", 80), timeout=1)
