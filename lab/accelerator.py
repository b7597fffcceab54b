"""Choosing how guest instructions run: hardware acceleration where it really works, emulation everywhere else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from contracts.arch import Arch
from lab.probe import probe_for
from lab.qemu import accelerator_option, qemu_program
from lab.spec import Accelerator, AcceleratorKind
from pipeline import commit
from pipeline.emulation import OVERRIDE, boot_id, find_hardware, qemu_version, tcg_cpu, wished_accelerator
from pipeline.errors import CommandError
from pipeline.run import require_program, run

TCG_PATIENCE = 5.0
_PROBE_TIMEOUT = 5.0  # seconds; a probe that works takes 0.1
_CACHE_NAME = "accelerator.json"


def choose_accelerator(arch: Arch, *, state: Path) -> Accelerator:
    """Return the accelerator for *arch* machines on this host, and why it is that one.

    ``PVMLAB_ACCEL`` (kvm, hvf or tcg) decides unseen. Otherwise hardware acceleration is proven by a guest of a few
    instructions, once per QEMU and boot of the host.

    :param state: folder that the probe's result is kept in.
    :raises UsageError: if ``PVMLAB_ACCEL`` is none of these. :raises MissingProgramError: if there is no QEMU.
    """
    program = Path(require_program(qemu_program(arch)))
    kind, reason = _override() or _hardware(arch, program, state)
    if kind is not AcceleratorKind.TCG:
        return Accelerator(kind, "host", reason, patience=1.0)
    return Accelerator(kind, tcg_cpu(arch, qemu_version(program)), reason, patience=TCG_PATIENCE)


def _override() -> tuple[AcceleratorKind, str] | None:
    wish = wished_accelerator()
    return (AcceleratorKind(wish), f"{OVERRIDE}={wish}") if wish else None


def _hardware(arch: Arch, program: Path, state: Path) -> tuple[AcceleratorKind, str]:
    """Return the hardware accelerator if it works, TCG otherwise, with the reason."""
    name, reason = find_hardware(arch)
    if name is None:
        return AcceleratorKind.TCG, reason
    kind = AcceleratorKind(name)
    failure = _cached_failure(kind, arch, program, state)
    return (AcceleratorKind.TCG, failure) if failure else (kind, f"{kind} ran a probe guest")


def _cached_failure(kind: AcceleratorKind, arch: Arch, program: Path, state: Path) -> str:
    """Return what is wrong with the accelerator, empty if nothing; probe it unless that is known."""
    key = [kind.value, arch.value, str(program), program.stat().st_mtime_ns, boot_id()]
    cache = state / _CACHE_NAME
    try:
        known = json.loads(cache.read_text())
        if known["key"] == key:
            return str(known["failure"])
    except (OSError, ValueError, KeyError, TypeError):  # not there or not ours: find out again
        pass
    failure = probe_failure(kind, arch, program)
    commit.publish_text(cache, json.dumps({"key": key, "failure": failure}) + "\n")
    return failure


def probe_failure(kind: AcceleratorKind, arch: Arch, program: Path) -> str:
    """Run the probe guest; return what went wrong as one sentence, empty if it ran. At most about 5 seconds."""
    probe = probe_for(arch)
    with tempfile.TemporaryDirectory(prefix="pvmlab-probe-") as folder:
        rom = Path(folder, "probe.rom")
        rom.write_bytes(probe.rom)
        cpu = "max" if kind is AcceleratorKind.TCG else "host"
        argv: list[str | Path] = [
            program, "-nodefaults", "-no-user-config", "-display", "none", *probe.options,
            "-machine", probe.machine, "-accel", accelerator_option(kind), "-cpu", cpu, "-bios", rom,
        ]  # fmt: skip
        try:
            done = run(argv, timeout=_PROBE_TIMEOUT, cwd=Path(folder), check=False)
        except CommandError:
            return f"{kind} did not run a probe guest within {_PROBE_TIMEOUT:g} s"
    if done.returncode == probe.returncode:
        return ""
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"{kind} did not run a probe guest: {said[0].removeprefix(f'{program.name}: ')}"
