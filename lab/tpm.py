"""A machine's TPM 2.0: swtpm in a process of its own, which lives as long as the machine's QEMU.

The socket is made here and handed over listening, so that QEMU cannot come too early, and swtpm ends by itself when
QEMU has gone (``--terminate``). What a TPM keeps over a power-off is in the machine's own folder. Its manual is
swtpm(8); what QEMU and swtpm say to each other is in QEMU's ``docs/specs/tpm.rst``.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

from lab import logs, processes
from lab.processes import ProcessRecord
from lab.sockets import ensure_private, socket_path
from lab.spec import Tpm
from pipeline.errors import MissingProgramError, PrerequisiteError, PvmlabError
from pipeline.run import require_program
from pipeline.workspace import Home

PROGRAM = "swtpm"
_LOG = "swtpm.log"
_PREFIXED = re.compile(r"[0-9a-f-]{36}:")
_END = 2.0  # seconds for a TPM whose QEMU has gone to notice; usually it takes 0.01


def tpm_of(home: Home, name: str) -> Tpm:
    """Return where the TPM of the machine *name* is, whether it has one or not."""
    return Tpm(socket=socket_path(home.run, f"{name}.tpm"), state=home.disks / f"{name}.tpm")


def require_swtpm() -> None:
    """Check that this host can give a machine a TPM.

    :raises PrerequisiteError: if not.
    """
    try:
        require_program(PROGRAM)
    except MissingProgramError:
        raise PrerequisiteError(
            f"{PROGRAM} is not installed, which is a machine's TPM",
            resolution="./pvmlab doctor tells the command that installs it",
        ) from None


def start(home: Home, name: str, identity: str) -> None:
    """Start the TPM of the machine *name*, whose QEMU is about to be started; the caller holds the machine's lock.

    :param identity: the machine's UUID.
    :raises PrerequisiteError: if there is no swtpm on this host.
    """
    require_swtpm()
    end(home, name)
    place = tpm_of(home, name)
    ensure_private(place.state)
    log_path = log_of(home, name)
    logs.rotate(log_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, log_path.open("ab") as log:
        server.bind(str(place.socket))
        server.listen(1)
        words = f"file={_LOG},prefix={identity}:"  # in front of each line of its log, and how its process is recognised
        argv = [
            PROGRAM, "socket", "--tpm2", "--terminate",
            "--tpmstate", "dir=.,mode=0600",  # no whole path, here nor below: a comma in one would be the end of it
            "--ctrl", f"type=unixio,fd={server.fileno()}",
            "--log", words,
        ]  # fmt: skip
        processes.spawn_recorded(
            _record_path(home, name), ProcessRecord(token=words), argv, cwd=place.state, log=log,
            pass_fds=[server.fileno()],
        )  # fmt: skip


def end(home: Home, name: str) -> None:
    """End the TPM of the machine *name*, whose QEMU has ended; do nothing if it has none, or it has ended."""
    path = _record_path(home, name)
    if (record := processes.find_record(path)) is not None:
        if not processes.wait_for_end(record, timeout=_END) and not processes.end_process(record):
            raise PvmlabError(f"the TPM of {name}, process {record.pid}, does not end")
        path.unlink(missing_ok=True)
    tpm_of(home, name).socket.unlink(missing_ok=True)


def find_fault(home: Home, name: str) -> str | None:
    """Return what is wrong with the TPM of the machine *name*, which runs; None if nothing is, or it has none."""
    record = processes.find_record(_record_path(home, name))
    if record is None or processes.is_alive(record):
        return None
    said = "".join(f": {words}" for words in last_words(home, name)[-1:])
    return f"its TPM (process {record.pid}) has died{said}; it has one again after its next start"


def last_words(home: Home, name: str) -> list[str]:
    """Return the last lines of what the TPM of the machine *name* said, without the machine's UUID before them."""
    lines = logs.tail(log_of(home, name), 5)
    return [line.partition(":")[2].strip() if _PREFIXED.match(line) else line for line in lines]


def log_of(home: Home, name: str) -> Path:
    """Return where swtpm's words are."""
    return tpm_of(home, name).state / _LOG


def _record_path(home: Home, name: str) -> Path:
    return home.run / f"_tpm-{name}.json"  # an underscore is in no machine's name
