"""Bad invocations of every verb: the right exit code, one clear message with a way out, no traceback, nothing made.

Nearly all run in this process, by the same :mod:`cli.program` that ./pvmlab becomes; some by ./pvmlab itself.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks
from cli import program
from pipeline.run import run
from pipeline.workspace import REPOSITORY
from tests.fakes.fresh_verbs import fresh_verbs

NO, USAGE, MISSING, CONFLICT, HOST = 1, 2, 3, 4, 5
# What stands for a required argument, so that the line is wrong in one way only.
FILLERS = {"shell": "bash", "file": "no-such-bundle", "source": "no-such-medium", "distro": "beos"}
Row = tuple[str, int, str]

# Words, exit code, a part of the message.
TABLE: list[Row] = [
    # the program
    ("vm.strat web1", USAGE, "there is no verb 'vm.strat'; did you mean vm.start"),
    ("start web1", USAGE, "there is no verb 'start'"),
    ("vm", USAGE, "there is no verb 'vm'"),
    ("vm.", USAGE, "there is no verb 'vm.'"),
    (".vm", USAGE, "there is no verb"),
    ("VM.LIST", USAGE, "there is no verb 'VM.LIST'"),
    ("--no-such", USAGE, "unknown option --no-such"),
    ("--versoin", USAGE, "unknown option --versoin"),
    ("-x", USAGE, "unknown option -x"),
    ("=", USAGE, "there is no verb '='"),
    # one word too many, or too few
    ("vm.list web1", USAGE, "vm.list does not take 'web1'"),
    ("status now", USAGE, "status does not take 'now'"),
    ("down --all", USAGE, "unknown option --all"),
    ("vm.create", USAGE, "vm.create wants NAME"),
    ("vm.start", USAGE, "vm.start wants NAME"),
    ("vm.logs", USAGE, "vm.logs wants NAME"),
    ("vm.clean", USAGE, "vm.clean wants NAME"),
    ("distro.show", USAGE, "distro.show wants DISTRO"),
    ("distro.remove", USAGE, "distro.remove wants DISTRO"),
    ("distro.add", USAGE, "distro.add wants SOURCE"),
    ("cache.export", USAGE, "cache.export wants FILE"),
    ("cache.import", USAGE, "cache.import wants FILE"),
    ("completion", USAGE, "completion wants SHELL"),
    ("render", USAGE, "render wants NAME"),
    ("vm.start web1 web2", USAGE, "vm.start does not take 'web2'"),
    ("vm.logs web1 serial", USAGE, "vm.logs does not take 'serial'"),
    ("net.show lab", USAGE, "net.show does not take 'lab'"),
    ("vm.start --force", USAGE, "unknown option --force"),
    ("vm.clean -f", USAGE, "unknown option -f"),
    # values of the wrong kind
    ("vm.create web1 --cpus two", USAGE, "--cpus wants a whole number"),
    ("vm.create web1 --cpus=1.5", USAGE, "--cpus wants a whole number"),
    ("vm.create web1 --cpus", USAGE, "--cpus wants a value"),
    ("vm.create web1 --memory", USAGE, "--memory wants a value"),
    ("vm.create web1 --memory much", USAGE, "--memory 'much' is not a size"),
    ("vm.create web1 --memory -1G", USAGE, "--memory"),
    ("vm.create web1 --memory 1Q", USAGE, "--memory '1Q' is not a size"),
    ("vm.create web1 --disk-size 8.5G", USAGE, "--disk-size"),
    ("vm.create web1 --disk-size big", USAGE, "--disk-size 'big' is not a size"),
    ("vm.create web1 --arch sparc", USAGE, "--arch 'sparc' is unknown"),
    ("vm.create web1 --arch X86_64", USAGE, "--arch 'X86_64' is unknown"),
    ("vm.create web1 --disk-bus ide", USAGE, "--disk-bus 'ide' is unknown"),
    ("vm.create web1 --firmware openfirmware", USAGE, "--firmware 'openfirmware' is unknown"),
    ("vm.create web1 --installer magic", USAGE, "--installer 'magic' is unknown"),
    ("vm.stop web1 --timeout soon", USAGE, "--timeout wants a whole number"),
    ("vm.start web1 --timeout soon", USAGE, "--timeout wants a whole number"),
    ("vm.stop web1 --timeout -3", USAGE, "--timeout is 0 or more, not -3"),
    ("vm.start web1 --timeout=-1", USAGE, "--timeout is 0 or more, not -1"),
    ("vm.restart web1 --stop-timeout -1", USAGE, "--stop-timeout is 0 or more, not -1"),
    ("vm.forward web1 --remove -8080", USAGE, "--remove is 0 or more, not -8080"),
    ("down --timeout -1", USAGE, "--timeout is 0 or more, not -1"),
    ("up --timeout never", USAGE, "--timeout wants a whole number"),
    ("down --timeout never", USAGE, "--timeout wants a whole number"),
    ("build --jobs many", USAGE, "--jobs wants a whole number"),
    ("build --jobs 0", USAGE, "--jobs is 1 or more"),
    ("build --jobs -1", USAGE, "--jobs"),
    ("build --wait-lock long", USAGE, "--wait-lock wants a whole number"),
    ("cache.verify --sample -1", USAGE, "--sample is 0 or more"),
    ("cache.verify --sample few", USAGE, "--sample wants a whole number"),
    ("provisioner.docker.logs --lines all", USAGE, "--lines wants a whole number"),
    ("net.create --taps many", USAGE, "--taps wants a whole number"),
    # values without sense
    ("vm.create Web1", USAGE, "'Web1' is not a machine name"),
    ("vm.create web_1", USAGE, "'web_1' is not a machine name"),
    ("vm.create web.1", USAGE, "'web.1' is not a machine name"),
    ("vm.create ../web1", USAGE, "'../web1' is not a machine name"),
    ("vm.create /etc/passwd", USAGE, "is not a machine name"),
    ("vm.create provisioner", USAGE, "a machine cannot be called 'provisioner'"),
    ("vm.create localhost", USAGE, "a machine cannot be called 'localhost'"),
    (f"vm.create {'a' * 64}", USAGE, "is not a machine name"),
    ("vm.create web1 --cpus 0", USAGE, "cpus is 0"),
    ("vm.create web1 --cpus 256", USAGE, "cpus is 256"),
    ("vm.create web1 --memory 1M", USAGE, "memory_mib is 1"),
    ("vm.create web1 --disk-size 1G", USAGE, "disk_gib is 1"),
    ("vm.create web1 --ip 10.0.0.1", USAGE, "10.0.0.1 cannot be a machine's address"),
    ("vm.create web1 --ip 192.168.100.1", USAGE, "192.168.100.1 cannot be a machine's address"),
    ("vm.create web1 --ip 192.168.100.0", USAGE, "cannot be a machine's address"),
    ("vm.create web1 --ip 192.168.100.200", USAGE, "cannot be a machine's address"),
    ("vm.create web1 --ip 192.168.100.300", USAGE, "'192.168.100.300' is not an IPv4 address"),
    ("vm.create web1 --ip 192.168.100.010", USAGE, "is not an IPv4 address"),
    ("vm.create web1 --ip fd00::1", USAGE, "is not an IPv4 address"),
    ("vm.create web1 --mac 52:54:00", USAGE, "52:54:00"),
    ("vm.create web1 --mac zz:54:00:00:00:01", USAGE, "zz:54:00:00:00:01"),
    ("vm.create web1 --mac ff:ff:ff:ff:ff:ff", USAGE, "ff:ff:ff:ff:ff:ff"),
    ("vm.create web1 --firmware bios", USAGE, "only UEFI boots"),
    ("vm.create web1 --distro beos", MISSING, "beos"),
    ("vm.create web1 --answer-file /no/such", MISSING, "/no/such"),
    ("render nope --what nonsense", MISSING, "there is no machine 'nope'"),
    ("up --name No_Name", USAGE, "'No_Name' is not a machine name"),
    ("up --distro beos", MISSING, "beos"),
    ("build no-such-task", MISSING, "no-such-task"),
    ("build rootfs:beos:x86_64", MISSING, "rootfs:beos:x86_64"),
    ("explain no-such-task", MISSING, "no-such-task"),
    # words that are verbs, too
    ("vm.forward up 8080:80", MISSING, "there is no machine 'up'"),
    ("vm.set down a=b", MISSING, "there is no machine 'down'"),
    ("vm.run test down -- uptime", MISSING, "there is no machine"),
    ("vm.run down -- uptime", MISSING, "there is no machine 'down'"),
    ("build --output xml", USAGE, "--output 'xml' is unknown"),
    ("distro.pull beos", MISSING, "beos"),
    ("distro.pull debian-12 --arch sparc", USAGE, "sparc"),
    ("distro.show beos", MISSING, "beos"),
    ("distro.remove beos --yes", MISSING, "beos"),
    ("distro.add /no/such.iso", MISSING, "/no/such.iso"),
    ("distro.add /no/such.iso --sha256 12", USAGE, "sha256"),
    ("cache.export .", USAGE, ". is a folder"),
    ("cache.import /no/such", MISSING, "there is no file /no/such"),
    ("cache.import .", MISSING, "there is no file ."),
    ("completion tcsh", USAGE, "there is no completion for 'tcsh'"),
    ("provisioner.create --mode cloud", USAGE, "--mode 'cloud' is unknown"),
    ("provisioner.create --image x", USAGE, "--image says which image"),
    ("provisioner.create --docker-tar a --dockerfile b", USAGE, "name two containers"),
    ("provisioner.docker.start --docker-tar a --dockerfile b", USAGE, "two containers"),
    ("vm.adopt 52:54:00 --name web1", USAGE, "52:54:00"),
    # networks
    ("net.create --kind hub", USAGE, "--kind 'hub' is unknown"),
    ("net.create --subnet 192.168.7.1/24", USAGE, "192.168.7.1/24 has host bits set"),
    ("net.create --subnet 192.168.7.0/29", USAGE, "is too small"),
    ("net.create --subnet here", USAGE, "--subnet=here is not an IPv4 network"),
    ("net.create --subnet 10.0.2.0/24", USAGE, "is the way out of the provisioner"),
    ("net.create --subnet 127.0.0.0/16", USAGE, "is not for private use"),
    ("net.create --subnet 8.8.8.0/24", USAGE, "is not for private use"),
    ("net.create --subnet 224.0.0.0/24", USAGE, "is not for private use"),
    ("net.create --ipv6-subnet 2001:db8::/64", USAGE, "is not a unique local /64"),
    ("net.create --ipv6-subnet fd00::/48", USAGE, "is not a unique local /64"),
    ("net.create --domain Lab", USAGE, "is not a DNS domain in lower case"),
    ("net.create --domain -x", USAGE, "-x"),
    ("net.create --dhcp maybe", USAGE, "--dhcp 'maybe' is unknown"),
    ("net.create --address 192.168.100.9", USAGE, "that is for dhcp proxy only"),
    ("net.create --dhcp proxy", USAGE, "--dhcp=proxy needs --address"),
    ("net.create --dhcp proxy --address 10.1.1.1", USAGE, "is not a host's address"),
    ("net.create --dhcp proxy --ipv6-subnet fd00::/64", USAGE, "ipv6_subnet needs dhcp to be server"),
    ("net.create --host-address 192.168.100.9", USAGE, "host_address is for a bridge only"),
    ("net.create --kind bridge --host-address 192.168.100.1", USAGE, "cannot be this host's address"),
    ("net.create --kind bridge --host-address 192.168.100.200", USAGE, "cannot be this host's address"),
    ("net.create --kind bridge --host-address here", USAGE, "host_address 'here' is not an IPv4 address"),
    ("net.create --kind bridge --taps 65", USAGE, "taps is 65"),
    ("net.create --taps -1", USAGE, "--taps"),
    ("net.create --taps 4", USAGE, "--taps is for a bridge only"),
    ("net.create --kind switch --taps 4", USAGE, "--taps is for a bridge only"),
    ("net.create --socket /s", USAGE, "socket is for vmnet only"),
    ("net.create --kind vmnet", HOST, "socket_vmnet is a program for macOS"),
    ("net.create --output xml", USAGE, "--output 'xml' is unknown"),
    # what is not there
    ("vm.start nope", MISSING, "there is no machine 'nope'"),
    ("vm.stop nope", MISSING, "there is no machine 'nope'"),
    ("vm.shell nope", MISSING, "there is no machine 'nope'"),
    ("vm.logs nope", MISSING, "there is no machine 'nope'"),
    ("vm.clean nope --yes", MISSING, "there is no machine 'nope'"),
    ("vm.events nope", MISSING, "nope"),
    ("vm.reinstall nope", MISSING, "there is no machine 'nope'"),
    ("render nope", MISSING, "there is no machine 'nope'"),
    ("vm.logs provisioner", MISSING, "log"),
    ("vm.shell provisioner", CONFLICT, "provisioner is off"),
    ("vm.start provisioner", USAGE, "provisioner"),
    ("vm.clean provisioner --yes", USAGE, "provisioner"),
    ("provisioner.docker.status", CONFLICT, "provisioner"),
    ("provisioner.docker.logs", CONFLICT, "provisioner"),
    ("provisioner.docker.stop", CONFLICT, "provisioner"),
    ("provisioner.docker.shell", CONFLICT, "provisioner"),
    ("vm.logs provisioner --which odd", USAGE, "--which 'odd' is unknown"),
    ("vm.clean nope", MISSING, "there is no machine 'nope'"),
    # living with machines
    ("vm.set nope", USAGE, "nothing of nope is to be changed"),
    ("vm.set nope --memory much", USAGE, "--memory 'much' is not a size"),
    ("vm.start nope --boot odd", USAGE, "--boot 'odd' is unknown"),
    ("vm.start nope --wait --interactive", USAGE, "two ways to wait"),
    ("vm.restart nope", MISSING, "there is no machine 'nope'"),
    ("vm.show nope", MISSING, "there is no machine 'nope'"),
    ("vm.show provisioner", USAGE, "provisioner"),
    ("vm.run -- true", USAGE, "on which machines?"),
    ("vm.run nope", USAGE, "which command?"),
    ("vm.run nope -- true", MISSING, "there is no machine 'nope'"),
    ("vm.run nope --all -- true", USAGE, "on which machines?"),
    ("vm.run --all -- true", USAGE, "no machine is there"),
    ("vm.run --label x=y -- true", USAGE, "no machine has the labels x=y"),
    ("vm.run nope --jobs 0 -- true", USAGE, "--jobs"),
    ("vm.copy a b", USAGE, "has to be a machine's, and none is"),
    ("vm.copy nope:/x other:/y", USAGE, "has to be a machine's, and both are"),
    ("vm.copy nope:/x .", MISSING, "there is no machine 'nope'"),
    ("vm.copy a", USAGE, "vm.copy wants DESTINATION"),
    ("vm.console nope", MISSING, "there is no machine 'nope'"),
    ("vm.screenshot nope", MISSING, "there is no machine 'nope'"),
    ("vm.clone nope new", MISSING, "there is no machine 'nope'"),
    ("vm.clone nope Bad_Name", USAGE, "'Bad_Name' is not a machine name"),
    ("vm.snapshot nope s", MISSING, "there is no machine 'nope'"),
    ("vm.snapshot provisioner s", USAGE, "provisioner"),
    ("vm.restore nope s", MISSING, "there is no machine 'nope'"),
    ("vm.snapshots nope", MISSING, "there is no machine 'nope'"),
    ("vm.forward nope", MISSING, "there is no machine 'nope'"),
    ("vm.forward nope x:y", USAGE, "'x:y' is no forward"),
    ("vm.forward nope 99999:80", USAGE, "99999"),
    ("vm.forward nope --remove 8080", MISSING, "there is no machine 'nope'"),
    ("vm.reinstall nope --rescue --withdraw", USAGE, "it goes alone"),
    ("vm.events 52:54:00:zz:00:01", USAGE, "52:54:00:zz:00:01"),
    ("vm.create web1 --nics 9", USAGE, "1 to 8 cards"),
    ("vm.create web1 --nic-model rtl", USAGE, "--nic-model 'rtl' is unknown"),
    ("vm.create web1 --more-disk 4G:ide", USAGE, "the bus 'ide' is unknown"),
    ("vm.create web1 --label x", USAGE, "--label 'x' is not KEY=VALUE"),
    ("vm.create web1 --label A=b", USAGE, "label key 'A'"),
    ("vm.create web1 --disk no-such.img", MISSING, "no-such.img cannot be read"),
    ("vm.create web1 --disk /etc", MISSING, "it is no regular file"),
    ("vm.create web1 --user-data no-such", MISSING, "no-such cannot be read"),
    ("vm.create web1 --ip 192.168.100.5 --ip 192.168.100.5", CONFLICT, "is taken by another card"),
    ("vm.create web1 --ip 192.168.100.5 --ip 192.168.100.6 --nics 1", USAGE, "addresses for 2 cards"),
    ("vm.create web1 --secure-boot --firmware bios", USAGE, "UEFI"),
    # a whole lab
    ("lab.up", MISSING, "the lab file lab.yaml cannot be read"),
    ("lab.up a b", USAGE, "described by one file"),
    ("lab.up /etc", MISSING, "the lab file /etc cannot be read"),
    ("lab.up /dev/null", USAGE, "is broken"),
    ("lab.down nope.yaml", MISSING, "the lab file nope.yaml cannot be read"),
    ("lab.status nope.yaml", MISSING, "the lab file nope.yaml cannot be read"),
    ("lab.diff nope.yaml", MISSING, "the lab file nope.yaml cannot be read"),
    # the rest
    ("distro.add http://", USAGE, "is no address to download from"),
    ("distro.add ftp://mirror.test/x.iso", USAGE, "is no address to download from"),
    ("distro.show ../../etc/passwd", MISSING, "there is no distribution"),
    ("cache.verify no-such-task", MISSING, "no-such-task"),
    ("explain *:beos:*", MISSING, "*:beos:*"),
    ("provisioner.create --docker-tar no-such", MISSING, "there is no file no-such"),
    ("provisioner.create --subnet 10.0.2.0/24", USAGE, "is the way out of the provisioner"),
    ("config.show now", USAGE, "config.show does not take 'now'"),
    ("doctor --output xml", USAGE, "--output 'xml' is unknown"),
    ("help nope", USAGE, "there is no verb 'nope'"),
    # nobody to ask
    ("clean", USAGE, "--yes says yes"),
    ("clean --purge", USAGE, "--yes says yes"),
    ("distro.remove debian-12", USAGE, "--yes"),
]
# They print a log, a script or a bundle, hand over to another program, or look after pvmlab itself.
WITHOUT_RESULT = {
    "cache.export", "completion", "lint", "provisioner.docker.logs", "provisioner.docker.shell", "setup", "test",
    "vm.console", "vm.logs", "vm.shell",
}  # fmt: skip
Verb = Callable[..., int]


def _generated() -> Iterator[Row]:
    """Yield for every verb: an option that it has not, and each of its own without a value, or with a wrong one."""
    verbs = fresh_verbs()
    for context in sorted(verbs.to_contexts(), key=lambda each: str(each.name)):
        verb, name = str(context.name), str(context.name)
        required = " ".join(FILLERS.get(str(each.name), "nope") for each in context.positional_args)
        line = f"{verb} {required}".strip()
        yield f"{line} --no-such-option", USAGE, "unknown option --no-such-option"
        for argument in sorted(context.args.values(), key=lambda each: str(each.name)):
            if argument in context.positional_args or not argument.takes_value or argument.optional:
                continue
            flag = next(flag for flag, each in context.flags.items() if each is argument and "_" not in flag)
            yield f"{line} {flag}", USAGE, f"{flag} wants a value"
            if argument.kind is int:
                yield f"{line} {flag} few", USAGE, f"{flag} wants a whole number, not 'few'"
        if context.positional_args:
            yield verb, USAGE, f"{name} wants "
        if "output" in context.args and not context.positional_args:
            yield f"{verb} --output xml", USAGE, "--output 'xml' is unknown"


GENERATED = list(_generated())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cli.setup.setup", lambda **_: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def verb(place: Path) -> Iterator[Verb]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield lambda *words: program.run(tasks.namespace, ["pvmlab", *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def check(code: int, out: str, err: str, *, wanted: Row, place: Path) -> None:
    _, expected, message = wanted
    assert code == expected, err
    assert err.startswith("pvmlab: error: "), err
    assert err.count("pvmlab: error: ") == 1
    assert message in err.splitlines()[0] or message in err, err
    assert "\n  what to do: " in err, f"no way out: {err}"
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert out == ""
    assert list(place.rglob("*")) == [], "something was made"


@pytest.mark.parametrize("row", TABLE + GENERATED, ids=lambda row: row[0].replace("/", "|")[:60])
def test_in_process(verb: Verb, place: Path, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    code = verb(*row[0].split())
    out, err = capsys.readouterr()
    check(code, out, err, wanted=row, place=place)


@pytest.mark.parametrize("row", TABLE[::8][:20], ids=lambda row: row[0].replace("/", "|")[:60])
def test_by_the_wrapper(place: Path, row: Row) -> None:
    done = run(
        [REPOSITORY / "pvmlab", *row[0].split()], timeout=60, check=False, cwd=place,
        env={"PVMLAB_HOME": str(place / "home"), "PVMLAB_CACHE": str(place / "cache")},
    )  # fmt: skip
    check(done.returncode, done.stdout, done.stderr, wanted=row, place=place)


def test_there_are_enough() -> None:
    verbs = set(fresh_verbs().task_names)
    assert len(TABLE) + len(GENERATED) >= 200
    assert {words.split()[0] for words, _, _ in GENERATED} == verbs


def test_help_and_json_wherever_there_is_a_result() -> None:
    """Verbs without --output print no result: they act, show a log or a document, or hand over to another program."""
    contexts = {str(each.name): each for each in fresh_verbs().to_contexts()}
    without = {name for name, each in contexts.items() if "output" not in each.args}
    for name in contexts:
        page = io.StringIO()
        sys_stdout, sys.stdout = sys.stdout, page
        try:
            assert program.run(fresh_verbs(), ["pvmlab", name, "--help"]) == 0
        finally:
            sys.stdout = sys_stdout
        assert page.getvalue().startswith(f"Usage: ./pvmlab {name}")
    assert without == WITHOUT_RESULT, "a verb with a result wants --output"
