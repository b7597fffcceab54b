"""The built image, loaded and run by a real Docker engine whose "host" has the provisioner's network and shares."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts import document
from contracts.arch import Arch
from contracts.lan import Lan
from pipeline.errors import CommandError
from pipeline.workspace import Cache
from pxeboot_stack import container
from pxeboot_stack.paths import HostShares
from tests.fakes.engine import Engine, running_engine
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition
from tests.fakes.namespaces import Inside, joined_namespaces

MACHINE = make_machine()


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine like the provisioner.

    :ivar namespace: its network. :ivar client: the other end of its private network.
    """

    engine: Engine
    shares: HostShares
    client: Inside
    namespace: str

    def run(self, arguments: Sequence[str]) -> None:
        """Start the container: ``docker`` with *arguments*, but in the background."""
        first, *others = arguments
        assert first == "run"
        self.engine.docker([first, "--detach", *others])

    def remove(self) -> None:
        """Remove the container, if there is one."""
        self.engine.docker(["rm", "--force", container.NAME], check=False)

    def inspect(self, what: str) -> Any:
        """Return what Docker says of the container: a template of Go."""
        return json.loads(self.engine.docker(["inspect", f"--format={{{{json {what}}}}}", container.NAME]).stdout)

    def execute(self, *words: str) -> str:
        """Run a program in the container; return what it prints."""
        return self.engine.docker(["exec", container.NAME, *words]).stdout

    def logs(self) -> str:
        """Return what the container said."""
        done = self.engine.docker(["logs", container.NAME], check=False)
        return done.stdout + done.stderr

    def services(self) -> dict[str, Any]:
        """Return the supervisor's record."""
        found: dict[str, Any] = json.loads(self.execute("cat", "/run/pvmlab/services.json"))
        return found

    def answers(self) -> bool:
        """Tell whether the services answer on the private network."""
        return bool(self.client.ask("/healthz").status == 200)

    def wait(self, what: str, condition: Callable[[], object], *, seconds: float = 60) -> None:
        """Wait until *condition* holds; fail with what the container said."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, CommandError):
                if condition():
                    return
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds:g} s; the container said:\n{self.logs()[-3000:]}")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def host(artifacts: Cache) -> Iterator[Host]:
    """An engine with the image loaded, on a private network, with a lab's shares."""
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(joined_namespaces())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvmlab-docker-")))
        folder.chmod(0o755)
        engine = stack.enter_context(running_engine(folder, namespace=names[0]))
        engine.docker(["load", f"--input={artifacts.container(Arch.X86_64)}"])
        shares = HostShares(engine.host)
        write_shares(shares)
        client = Inside(names[1])
        stack.callback(client.close)
        made = Host(engine, shares, client, names[0])
        stack.callback(made.remove)
        yield made


def write_shares(shares: HostShares) -> None:
    """Write a lab's files as the host does: definitions are their owner's only, and that is not root."""
    settings = make_settings(shares.root)
    write_artifacts(settings)
    shares.lab.parent.mkdir(exist_ok=True)
    shares.templates.mkdir(exist_ok=True)
    shares.lab.write_text(document.dumps(Lan()))
    shares.boot_id.write_text("0123456789abcdef\n")
    definition = write_definition(shares.vms, MACHINE)
    definition.chmod(0o600)
    for path in (shares.vms, shares.status, definition):
        os.chown(path, 1000, 1000)
