from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts.machine import VmDefinition
from lab.ssh_config import ProvisionerAccess, quote, render_config, render_known_hosts

ACCESS = ProvisionerAccess(port=2222, public_host_key="ssh-ed25519 AAAAprov provisioner")

REST = """
Host *
    IdentityFile "/home/me/.pvmlab/ssh/id_ed25519"
    UserKnownHostsFile "/home/me/.pvmlab/ssh/known_hosts"
    GlobalKnownHostsFile /dev/null
    IdentitiesOnly yes
    IdentityAgent none
    PreferredAuthentications publickey
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CheckHostIP no
    BatchMode yes
    ConnectTimeout 20
    ServerAliveInterval 15
    ServerAliveCountMax 4
    LogLevel ERROR
"""

WHOLE = f"""\
# Written by pvmlab at every change of the lab's machines.

Host provisioner
    HostKeyAlias provisioner
    HostName 127.0.0.1
    Port 2222
    User root

Host web1
    HostKeyAlias web1
    HostName 192.168.100.2
    User lab
    ProxyCommand ssh -F /home/me/.pvmlab/ssh/config -W %h:%p provisioner
{REST}"""


def test_whole_config(make_definition: Callable[..., VmDefinition]) -> None:
    assert render_config(Path("/home/me/.pvmlab/ssh"), ACCESS, [make_definition()]) == WHOLE


def test_config_without_provisioner_has_no_machines(make_definition: Callable[..., VmDefinition]) -> None:
    text = render_config(Path("/home/me/.pvmlab/ssh"), None, [make_definition()])
    assert text == "# Written by pvmlab at every change of the lab's machines.\n" + REST


def test_paths_with_blanks_quotes_and_percent_signs_are_one_word(make_definition: Callable[..., VmDefinition]) -> None:
    text = render_config(Path('/a b/100%h/x"y'), ACCESS, [make_definition()])
    assert r"""IdentityFile "/a b/100%%h/x\"y/id_ed25519""" in text
    assert """ProxyCommand ssh -F '/a b/100%%h/x"y/config' -W %h:%p provisioner""" in text


def test_backslash_is_doubled() -> None:
    assert quote(Path("/a\\b")) == r'"/a\\b"'


def test_known_hosts_hold_each_machine_without_comment(make_definition: Callable[..., VmDefinition]) -> None:
    text = render_known_hosts(ACCESS, [make_definition()])
    assert text == "provisioner ssh-ed25519 AAAAprov\nweb1 ssh-ed25519 AAAAhost\n"
