"""The definitions of a lab's target machines: ``$PVMLAB_HOME/vms/<name>.json``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from contracts import document
from contracts.answers import OWN_SUFFIX
from contracts.document import DocumentError
from contracts.lan import Lan
from contracts.machine import SshHostKey, VmDefinition
from contracts.names import PROVISIONER_NAME, validate_machine_name
from contracts.nocloud import OWN_USER_DATA_SUFFIX
from contracts.regular_file import open_regular
from lab.cards import find_owners, plan_cards
from lab.lab import Lab
from lab.machine_request import CardRequest, MachineRequest, define
from lab.native import OwnAnswers
from lab.network_settings import read_settings
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError

__all__ = ["BrokenDefinitionError", "CardRequest", "DefinitionStore", "MachineRequest", "require_name"]

_RESERVED = {PROVISIONER_NAME: "the provisioner has it", "localhost": "every system calls itself so"}


class BrokenDefinitionError(PvmlabError):
    """A definition cannot be understood. :ivar faults: all that is wrong in it."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"the definition of {path.stem} is broken",
            details="\n".join([str(path), *faults]),
            resolution=f"repair the file, or ./pvmlab vm.clean {path.stem} removes the machine",
        )


class DefinitionStore:
    """The definitions in the home of *lab*."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def folder(self) -> Path:
        """Where the definitions are."""
        return self._lab.home.vms

    def path(self, name: str) -> Path:
        """Return where the definition of the machine *name* is.

        :raises UsageError: if that is not a machine's name.
        """
        return self.folder / f"{require_name(name)}.json"

    def exists(self, name: str) -> bool:
        """Tell whether there is a machine *name*, with a good definition or a broken one."""
        return self.path(name).exists()

    def load(self, name: str) -> VmDefinition:
        """Return the definition of the machine *name*.

        :raises NotFoundError: if there is none. :raises BrokenDefinitionError: if it makes no sense.
        """
        path = self.path(name)
        if path.exists() and not path.is_file():
            raise BrokenDefinitionError(path, ["it is no regular file"])
        try:
            definition = document.loads(VmDefinition, path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"there is no machine {name!r}", resolution=self._known()) from None
        except PermissionError as error:  # one that root made, say, is no reason not to list the others
            raise BrokenDefinitionError(path, [f"it cannot be read: {error.strerror}"]) from None
        except DocumentError as error:
            raise BrokenDefinitionError(path, _without_secrets(error.faults)) from None
        if definition.name != name:
            raise BrokenDefinitionError(path, [f"name: it says {definition.name!r}, the file says {name!r}"])
        return definition

    def is_adopted(self, name: str) -> bool:
        """Tell whether the machine *name* is none that the lab runs; one with a broken definition counts as ours.

        :raises NotFoundError: if there is none.
        """
        try:
            return not self.load(name).managed
        except BrokenDefinitionError:
            return False

    def require_current(self, definition: VmDefinition) -> None:
        """Check that the machine of *definition*, which was read a while ago, is still there.

        :raises NotFoundError: if it was removed since; also if there is another one of its name by now.
        """
        if self.load(definition.name).uuid != definition.uuid:
            raise NotFoundError(
                f"another command has removed {definition.name}, and made another machine of that name",
                resolution="look at it: ./pvmlab vm.list; then the same command again",
            )

    def names(self) -> list[str]:
        """Return the names of all machines, sorted, also of those with a broken definition."""
        return [name for name in self._stems() if _is_name(name)]

    def strays(self) -> list[str]:
        """Return the names of the files among the definitions that cannot be a machine's, without ``.json``."""
        return [name for name in self._stems() if not _is_name(name)]

    def load_all(self) -> list[VmDefinition]:
        """Return all definitions by name.

        :raises BrokenDefinitionError: for the first broken one.
        """
        return [self.load(name) for name in self.names()]

    def load_good(self) -> list[VmDefinition]:
        """Return all definitions by name but the broken ones, which the services do not use either."""
        good = []
        for name in self.names():
            with contextlib.suppress(BrokenDefinitionError):
                good.append(self.load(name))
        return good

    def plan(self, request: MachineRequest, *, host_key: SshHostKey, authorized_key: str) -> VmDefinition:
        """Return the definition that *request* asks for, with free addresses; nothing is written.

        :raises UsageError: if a value makes no sense.
        :raises ConflictError: if the name, the MAC or the IP address is taken.
        """
        if self.exists(request.name):
            raise ConflictError(
                f"there is a machine {request.name!r} already",
                resolution=f"choose another name, or ./pvmlab vm.clean {request.name} first",
            )
        (cards,) = plan_cards([request], self._lab.lan, self._lab.find_identity(), self.owners(self.load_all()))
        return define(request, cards, host_key=host_key, authorized_key=authorized_key)

    def with_addresses(self, requests: Sequence[MachineRequest]) -> list[MachineRequest]:
        """Return *requests* with all addresses said: none is chosen for one machine that another one asks for.

        :raises UsageError: :raises ConflictError: as :meth:`plan`.
        """
        owners = self.owners(self.load_all())
        planned = plan_cards(requests, self._lab.lan, self._lab.find_identity(), owners)
        return [request.on_cards(cards) for request, cards in zip(requests, planned, strict=True)]

    def owners(self, others: Sequence[VmDefinition], lan: Lan | None = None) -> dict[str, str]:
        """Return who has which address, if *others* are the machines. :param lan: if it is to be another network."""
        host_address = read_settings(self._lab.home).host_address
        return find_owners(others, lan or self._lab.lan, self._lab.find_identity(), host_address=host_address)

    def answers_path(self, name: str) -> Path:
        """Return where a person's own answer file for the machine *name* is, if there is one."""
        return self.path(name).with_name(f"{name}{OWN_SUFFIX}")

    def user_data_path(self, name: str) -> Path:
        """Return where a person's own user-data for the machine *name* is, if there is any."""
        return self.path(name).with_name(f"{name}{OWN_USER_DATA_SUFFIX}")

    def write_user_data(self, name: str, text: str | None) -> None:
        """Publish a person's own user-data, or have there be none. It may hold passwords: its owner's only."""
        if text is None:
            self.user_data_path(name).unlink(missing_ok=True)
        else:
            commit.publish_text(self.user_data_path(name), text, mode=0o600)

    def find_user_data(self, name: str) -> str | None:
        """Return a person's own user-data for the machine *name*, or None.

        :raises ConflictError: if it cannot be read.
        """
        return _find_own(self.user_data_path(name), f"the user-data of {name}")

    def find_answers(self, name: str) -> str | None:
        """Return a person's own answer file for the machine *name*, or None.

        :raises ConflictError: if it cannot be read.
        """
        return _find_own(self.answers_path(name), f"the answer file of {name}")

    def write(self, definition: VmDefinition, answers: OwnAnswers | None = None) -> None:
        """Publish *definition*. It holds a private key: only its owner may read it.

        :param answers: a person's own answer file. It is there before the definition speaks of it, and may hold
            passwords.
        """
        if answers is not None:
            commit.publish_text(self.answers_path(definition.name), answers.text, mode=0o600)
        else:
            self.answers_path(definition.name).unlink(missing_ok=True)
        commit.publish_text(self.path(definition.name), document.dumps(definition), mode=0o600)

    def rewrite(self, definition: VmDefinition) -> None:
        """Publish a changed *definition* in the place of the one that is there; what goes with it stays."""
        commit.publish_text(self.path(definition.name), document.dumps(definition), mode=0o600)

    def delete(self, name: str) -> None:
        """Remove the definition of the machine *name* and what goes with it; do nothing if there is none."""
        self.answers_path(name).unlink(missing_ok=True)
        self.user_data_path(name).unlink(missing_ok=True)
        self.path(name).unlink(missing_ok=True)

    def _stems(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if not path.name.startswith("."))

    def _known(self) -> str:
        names = self.names()
        if not names:
            return "there is none at all: ./pvmlab vm.create NAME makes one"
        return f"known are: {', '.join(names)}; ./pvmlab vm.create NAME makes one"


def require_name(name: str) -> str:
    """Return *name* if a target machine may have it.

    :raises UsageError: if not.
    """
    try:
        validate_machine_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if name in _RESERVED:
        raise UsageError(f"a machine cannot be called {name!r}: {_RESERVED[name]}", resolution="choose another name")
    return name


def _find_own(path: Path, what: str) -> str | None:
    """Return what a person wrote in the file *path*, or None. :raises ConflictError: if it cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="", opener=open_regular) as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConflictError(
            f"{what} cannot be read", details=f"{path}: {reason}", resolution="repair the file, or remove it"
        ) from None


def _is_name(name: str) -> bool:
    try:
        require_name(name)
    except UsageError:
        return False
    return True


def _without_secrets(faults: Sequence[str]) -> list[str]:
    """A fault quotes the value it is about; a private key must not get onto a screen."""
    return ["ssh_host_key: not valid" if fault.startswith("ssh_host_key") else fault for fault in faults]
