from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import Installer, VmDefinition
from pxeboot_stack.boot_handler import scripts
from tests.fakes.lab_files import make_machine, make_settings

TOKEN = "0123456789abcdef" * 2

GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack"
COMMANDS = {"#!ipxe", "#", "isset", "set", "echo", "chain", "iseq", "sleep", "inc", "goto", "exit", "imgfree", "kernel",
            "initrd", "boot", "reboot"}  # fmt: skip
NATIVE = {
    Installer.PRESEED: "debian-13",
    Installer.AUTOINSTALL: "ubuntu-24.04",
    Installer.KICKSTART: "rocky-10",
}


def test_the_chain_script_is_the_golden_one() -> None:
    assert scripts.render_chain(Lan().base_url) == (GOLDEN / "boot.ipxe").read_text()


def test_the_install_script_is_the_golden_one(tmp_path: Path) -> None:
    script = scripts.render_install(make_machine(), make_settings(tmp_path), token=TOKEN)
    assert script == (GOLDEN / "install.ipxe").read_text()


def test_the_disk_script_is_the_golden_one() -> None:
    assert scripts.render_boot_disk(make_machine()) == (GOLDEN / "disk.ipxe").read_text()


@pytest.mark.parametrize("kind", list(NATIVE))
def test_the_scripts_of_other_installers_are_the_golden_ones(kind: Installer, tmp_path: Path) -> None:
    machine = make_machine(distro=NATIVE[kind], installer=kind)
    script = scripts.render_native(machine, make_settings(tmp_path), token=TOKEN)
    assert script == (GOLDEN / f"{kind}.ipxe").read_text()


def test_every_installer_has_its_script() -> None:
    assert set(NATIVE) == {kind for kind in Installer if kind.is_native}


def test_another_architecture_gets_its_own_files_and_console(tmp_path: Path) -> None:
    script = scripts.render_install(make_machine(arch=Arch.AARCH64), make_settings(tmp_path), token=TOKEN)
    assert "console=ttyAMA0,115200" in script
    assert "/images/debian-12/aarch64/vmlinuz" in script
    assert "x86_64" not in script


def test_every_label_that_is_gone_to_exists_and_every_try_is_counted(tmp_path: Path) -> None:
    for script in (
        scripts.render_chain("http://10.0.0.1"),
        scripts.render_install(make_machine(), make_settings(tmp_path), token=TOKEN),
        *(scripts.render_native(make_machine(installer=kind), make_settings(tmp_path), token=TOKEN) for kind in NATIVE),
    ):
        labels = set(re.findall(r"^:(\w+)$", script, re.MULTILINE))
        assert set(re.findall(r"goto (\w+)", script)) <= labels
        assert script.count("inc attempt") == 1
        assert f"iseq ${{attempt}} {scripts.ATTEMPTS} && goto give_up" in script
        assert script.rstrip().splitlines()[-1] in {"exit 1", "reboot"}


@given(
    value=st.text() | st.sampled_from(["a b", "a\nreboot", "${net0/ip}", "a;b", "a && b", "---", "a,b=c"]),
    field=st.sampled_from(["name", "distro", "mac"]),
    kind=st.sampled_from(Installer),
)
def test_no_value_becomes_a_command(
    value: str, field: str, kind: Installer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Even past the validation of definitions: a value is refused, or the script keeps its shape."""
    settings = make_settings(tmp_path_factory.getbasetemp() / "injection")
    machine = make_machine(installer=kind)
    render = scripts.render_native if kind.is_native else scripts.render_install
    hostile = object.__new__(VmDefinition)
    for item in dataclasses.fields(VmDefinition):
        object.__setattr__(hostile, item.name, value if item.name == field else getattr(machine, item.name))
    plain = render(machine, settings, token=TOKEN)
    try:
        script = render(hostile, settings, token=TOKEN)
    except ValueError:
        return
    assert len(script.splitlines()) == len(plain.splitlines())
    for line, wanted in zip(script.splitlines(), plain.splitlines(), strict=True):
        assert line.split()[:1] == wanted.split()[:1]
        assert len(line.split()) == len(wanted.split())
        assert re.findall(r"\$\{.*?\}|&&|\|\||;|#", line) == re.findall(r"\$\{.*?\}|&&|\|\||;|#", wanted)


@pytest.mark.parametrize("value", ["", "a b", "a\nreboot", "${net0/ip}", "a&&b", "a|b", "#", "ä", "a\n"])
def test_hostile_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be written into an iPXE script"):
        scripts.render_chain(value)


def test_scripts_use_only_commands_we_know(tmp_path: Path) -> None:
    for script in (
        scripts.render_chain("http://10.0.0.1"),
        scripts.render_install(make_machine(), make_settings(tmp_path), token=TOKEN),
        *(scripts.render_native(make_machine(installer=kind), make_settings(tmp_path), token=TOKEN) for kind in NATIVE),
        scripts.render_boot_disk(make_machine()),
    ):
        assert script.startswith("#!ipxe\n")
        first_words = {line.split()[0] for line in script.splitlines() if not line.startswith(":")}
        assert first_words <= COMMANDS
