"""The NoCloud documents of a machine, as pure functions of its definition.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. The documents are written as
JSON, which is YAML (1.2, and what PyYAML's loader accepts), so no YAML writer is needed in the container.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from contracts.lan import Lan
from contracts.machine import VmDefinition

OWN_USER_DATA_SUFFIX = ".user-data"
"""Of a person's own user-data, after the machine's name; it lies beside the definition, for its owner only."""
MAX_OWN_USER_DATA = 256 * 1024  # bytes
# A person's own comes first: lists are joined, and where both say something else of one thing, the first one stays.
_MERGE = "dict(no_replace,recurse_list)+list(append)+str()"
_MULTIPART = ("content-type: multipart/", "mime-version:")
_NOT_ASCII = re.compile(r"[\x7f-\uffff]")


def dump_yaml(data: Any, *, indent: int | None = None) -> str:
    """Return *data* as text that is JSON and YAML at once.

    JSON's own form with escapes is not: it writes a character beyond U+FFFF as two escapes, which YAML's readers refuse
    or take for two. So such a character stands as it is, and every other that is not ASCII as its one escape: as it is,
    some of them would end a line in YAML. Half of such a pair, which is no character, becomes U+FFFD.
    """
    text = json.dumps(data, indent=indent, sort_keys=True, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    return "\\ufffd" if "\ud800" <= character <= "\udfff" else f"\\u{ord(character):04x}"


def _yaml(data: Mapping[str, Any]) -> str:
    return dump_yaml(data, indent=2) + "\n"


def render_meta_data(machine: VmDefinition, lan: Lan) -> str:  # noqa: ARG001 (one signature for all four documents)
    """Return ``meta-data``. The instance-id is the UUID: a machine made again is a new instance to cloud-init."""
    return _yaml({"instance-id": f"iid-{machine.uuid}", "local-hostname": machine.name})


def render_user_data(machine: VmDefinition, lan: Lan) -> str:
    """Return ``user-data``: one account with key login only, our host key, no passwords anywhere.

    sshd's settings are the image's: with ``ssh_pwauth`` here, cloud-init would start sshd a second time.
    """
    return "#cloud-config\n" + _yaml(
        {
            "hostname": machine.name,
            "fqdn": f"{machine.name}.{lan.domain}",
            "prefer_fqdn_over_hostname": False,
            "disable_root": True,
            # cloud-init would call update-locale, which a system without the package "locales" lacks. As text, since
            # the schema of cloud-init 22.4 (Debian 12) knows no boolean here, though its code does.
            "locale": "false",
            "ssh_deletekeys": True,
            "ssh_genkeytypes": ["ed25519"],  # the schema wants one; none is made where ssh_keys has it
            "ssh_keys": {
                "ed25519_private": machine.ssh_host_key.private,
                "ed25519_public": machine.ssh_host_key.public,
            },
            "users": [
                {
                    "name": machine.user,
                    "groups": ["sudo"],
                    "lock_passwd": True,
                    "shell": "/bin/bash",
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "ssh_authorized_keys": list(machine.ssh_authorized_keys),
                }
            ],
            **_package_sources(machine),
        }
    )


def _package_sources(machine: VmDefinition) -> dict[str, Any]:
    """Return where the machine's packages come from. Root filesystems do not say: they are the same everywhere."""
    if not machine.package_sources:
        return {}
    content = "".join(f"{line}\n" for line in machine.package_sources)
    return {"write_files": [{"path": "/etc/apt/sources.list", "content": content}]}


def combine_user_data(standard: str, own: str) -> str:
    """Return user-data of two parts: what a person wrote, then the *standard* one, which has the lab's account.

    Format: MIME multipart, which takes any kind of user-data as a part
    (https://cloudinit.readthedocs.io/en/latest/explanation/format.html). cloud-init adds the second part to the first:
    of what both have, lists such as ``users`` are joined, and anything else is as the person said
    (https://cloudinit.readthedocs.io/en/latest/reference/merging.html).
    """
    digest = hashlib.sha256(f"{len(own)}\n{own}{standard}".encode()).hexdigest()
    boundary = f"==pvmlab-{digest[:32]}=="  # in no text that it is a digest of
    # a person's own multipart stands as it is: its parts are found within ours
    first = own if own.lower().startswith(_MULTIPART) else _part(own, "own")
    parts = (first, _part(standard, "lab", more=f"Merge-Type: {_MERGE}\n"))
    body = "".join(f"--{boundary}\n{part.rstrip(chr(10))}\n" for part in parts)
    return f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n{body}--{boundary}--\n'


def _part(text: str, name: str, *, more: str = "") -> str:
    """Return *text* as a part. It is of the type text/plain: then cloud-init goes by the text's first line."""
    plain = text.isascii() and "\r" not in text and max(map(len, text.split("\n")), default=0) < 900
    encoding, body = ("7bit", text) if plain else ("base64", base64.encodebytes(text.encode()).decode())
    return (
        'Content-Type: text/plain; charset="utf-8"\nMIME-Version: 1.0\n'
        f"Content-Transfer-Encoding: {encoding}\n"
        f'Content-Disposition: attachment; filename="{name}"\n{more}\n{body}'
    )


def render_network_config(machine: VmDefinition, lan: Lan) -> str:  # noqa: ARG001
    """Return ``network-config`` version 2: DHCP on each card, found by its MAC and identified by it.

    Nobody waits for the further cards: a machine is up when its first one is.
    """
    ethernets = {
        f"lan{number}": {
            "match": {"macaddress": card.mac},
            "set-name": f"lan{number}",
            "dhcp4": True,
            "dhcp-identifier": "mac",
            # systemd-resolved asks a DNS server for names in .local only if the server's domain is said so.
            # As text: cloud-init's schema takes no boolean here.
            "dhcp4-overrides": {"use-domains": "true"},
            **({"dhcp6": True} if card.ipv6 else {}),
            **({"optional": True} if number else {}),
        }
        for number, card in enumerate(machine.cards)
    }
    return _yaml({"version": 2, "ethernets": ethernets})


def render_vendor_data(machine: VmDefinition, lan: Lan) -> str:  # noqa: ARG001
    """Return ``vendor-data``: an empty cloud-config, there so that no client has to handle its absence."""
    return "#cloud-config\n{}\n"


DOCUMENTS: Mapping[str, Callable[[VmDefinition, Lan], str]] = {
    "meta-data": render_meta_data,
    "user-data": render_user_data,
    "network-config": render_network_config,
    "vendor-data": render_vendor_data,
}
