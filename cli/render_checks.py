"""Whether the reader of a document would take it: checked on the host, before a machine boots.

A document for cloud-init is checked against the JSON schema that cloud-init itself checks it by, taken out of the root
filesystem of the machine's own release: the same version that will read it.
"""

from __future__ import annotations

import dataclasses
import email
import email.message
import functools
import importlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.document import DocumentError, loads
from contracts.install import InstallerConfig
from contracts.machine import VmDefinition
from contracts.templates import What
from pipeline.errors import CommandError, MissingProgramError
from pipeline.run import run
from pipeline.workspace import Cache

_CLOUD_CONFIG = "#cloud-config"
# What else user-data may begin with: https://cloudinit.readthedocs.io/en/latest/explanation/format.html
_OTHER_FORMATS = (
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template:",
    "Content-Type:",
    "MIME-Version:",
)
_MULTIPART = ("Content-Type: multipart/", "MIME-Version:")
_GUESSED = ("text/plain", "text/x-not-multipart")  # types of parts whose first line says what they are
_SCHEMA_FILE = re.compile(r"/cloudinit/config/schemas/(schema-(?:cloud-config-v1|network-config-v[12])\.json)\Z")
_CLOUD_CONFIG_SCHEMA = "schema-cloud-config-v1.json"
_MOST_FAULTS = 20
_PRESEED_TYPES = frozenset({"string", "boolean", "select", "multiselect", "password", "note", "text", "title", "seen"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found. :ivar by: by what it was checked, for people. :ivar faults: none if it is right."""

    by: str
    faults: tuple[str, ...] = ()


def check_document(what: str, text: str, definition: VmDefinition, cache: Cache) -> Checked:
    """Check the document *what* of a machine."""
    checks: dict[str, Callable[[], Checked]] = {
        What.USER_DATA: lambda: _check_cloud_config(text, definition, cache),
        What.VENDOR_DATA: lambda: _check_cloud_config(text, definition, cache),
        What.NETWORK_CONFIG: lambda: _check_network(text, definition, cache),
        What.META_DATA: lambda: _check_meta_data(text),
        What.AUTOINSTALL: lambda: _check_autoinstall(text, definition, cache),
        What.PRESEED: lambda: _check_preseed(text),
        What.KICKSTART: lambda: _check_kickstart(text, definition),
        What.IPXE: lambda: Checked(by="it begins with #!ipxe; nothing but iPXE itself reads more of it"),
        What.IGNITION: lambda: Checked(by="it is JSON with an Ignition version"),
        "config": lambda: _check_config(text),
    }
    return checks[what]()


def check_user_data(text: str, definition: VmDefinition, cache: Cache) -> Checked:
    """Check user-data that a person wrote for a machine."""
    return _check_cloud_config(text, definition, cache)


def _check_config(text: str) -> Checked:
    try:
        loads(InstallerConfig, text)
    except DocumentError as error:
        return Checked(by="the installer's own reader", faults=error.faults)
    return Checked(by="right, by the installer's own reader")


def _check_meta_data(text: str) -> Checked:
    data, faults = _require_mapping(text)
    if not faults and not data.get("instance-id"):
        faults = ["instance-id: missing, and without it cloud-init ignores all of the seed"]
    return Checked(by="it is YAML with an instance-id", faults=tuple(faults))


def _check_cloud_config(text: str, definition: VmDefinition, cache: Cache) -> Checked:
    if text.startswith(_MULTIPART):
        return _check_parts(text, definition, cache)
    if not text.startswith(_CLOUD_CONFIG):
        if text.startswith(_OTHER_FORMATS):
            return Checked(by=f"not checked: it begins with {text.split(maxsplit=1)[0]}, not with {_CLOUD_CONFIG}")
        fault = f"it begins with neither {_CLOUD_CONFIG} nor another word that cloud-init knows: it would be ignored"
        return Checked(by="its first line", faults=(fault,))
    data, faults = _require_mapping(text)
    if faults:
        return Checked(by="YAML", faults=tuple(faults))
    return _by_schema(data, _CLOUD_CONFIG_SCHEMA, definition, cache)


def _check_parts(text: str, definition: VmDefinition, cache: Cache) -> Checked:
    """Check each part of a MIME archive: what a person wrote, and what the lab adds to it."""
    parts = [part for part in email.message_from_string(text).walk() if not part.is_multipart()]
    found = [_check_part(part, definition, cache) for part in parts]
    return Checked(
        by="; ".join(f"part {number}: {each.by}" for number, each in enumerate(found, start=1)),
        faults=tuple(f"part {number}: {fault}" for number, each in enumerate(found, start=1) for fault in each.faults),
    )


def _check_part(part: email.message.Message, definition: VmDefinition, cache: Cache) -> Checked:
    kind, payload = part.get_content_type(), part.get_payload(decode=True)
    text = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
    if kind == "text/cloud-config" and not text.startswith(_CLOUD_CONFIG):  # the type says it, the text need not
        text = f"{_CLOUD_CONFIG}\n{text}"
    elif kind not in _GUESSED:
        return Checked(by=f"not checked: it is {kind}")
    return _check_cloud_config(text, definition, cache)


def _check_network(text: str, definition: VmDefinition, cache: Cache) -> Checked:
    data, faults = _require_mapping(text)
    section = data.get("network", data)
    version = section.get("version") if isinstance(section, dict) else None
    if not faults and version not in {1, 2}:
        faults = ["version: neither 1 nor 2"]
    if faults:
        return Checked(by="YAML", faults=tuple(faults))
    return _by_schema({"network": section}, f"schema-network-config-v{version}.json", definition, cache)


def _check_autoinstall(text: str, definition: VmDefinition, cache: Cache) -> Checked:
    data, faults = _require_mapping(text)
    section = data.get("autoinstall")
    if not text.startswith(_CLOUD_CONFIG):
        faults.append(f"it does not begin with {_CLOUD_CONFIG}")
    if not isinstance(section, dict) or section.get("version") != 1:
        faults.append("autoinstall.version: not 1")
    if faults or not isinstance(section, dict):
        return Checked(by="YAML", faults=tuple(faults))
    found = _by_schema(section.get("user-data", {}), _CLOUD_CONFIG_SCHEMA, definition, cache)
    return Checked(
        by=f"it is YAML with autoinstall.version 1; its user-data: {found.by}",
        faults=tuple(f"autoinstall.user-data.{fault}" for fault in found.faults),
    )


def _require_mapping(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the YAML mapping *text*, or an empty one and why it is none."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the other takes ten seconds for the longest document
    try:
        data = yaml.load(text, Loader=loader)  # noqa: S506 (both make plain data only)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that is none, as 2024-13-01
        return {}, [f"not YAML: {' '.join(str(error).split())}".replace('in "<unicode string>",', "at")]
    if not isinstance(data, dict):
        return {}, [f"it is a {type(data).__name__}, not a mapping of keys to values"]
    return data, []


def _by_schema(data: object, name: str, definition: VmDefinition, cache: Cache) -> Checked:
    archive = cache.image(definition.distro, definition.arch, "rootfs.tar.zst")
    try:
        schema = read_schemas(archive).get(name)
    except (OSError, ValueError) as error:
        return Checked(by=f"it is YAML; cloud-init's schema was not to be had: {error}")
    if schema is None:
        return Checked(by=f"it is YAML; the cloud-init of {definition.distro} has no schema for it")
    try:
        jsonschema = importlib.import_module("jsonschema")
    except ImportError:
        return Checked(by="it is YAML; without the Python package jsonschema it is not checked by cloud-init's schema")
    faults = tuple(dict.fromkeys(_schema_faults(jsonschema, schema, data)))  # several parts may speak of one key
    return Checked(
        by=f"{'wrong' if faults else 'right'}, by the schema of cloud-init in {definition.distro}", faults=faults
    )


def _schema_faults(jsonschema: Any, schema: Mapping[str, Any], data: object) -> Iterator[str]:
    """Yield what is wrong, each with its path. Of alternatives none of which fits, the nearest is spoken of."""
    validator = jsonschema.validators.validator_for(schema)(schema)
    errors = sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.path)))
    for error in errors[:_MOST_FAULTS]:
        nearest = jsonschema.exceptions.best_match([error])
        path = ".".join(map(str, nearest.absolute_path)) or "document"
        yield f"{path}: {nearest.message:.200}"


@functools.lru_cache(maxsize=4)
def read_schemas(archive: Path) -> Mapping[str, Any]:
    """Return cloud-init's JSON schemas in the root filesystem *archive* (tar, compressed by zstd), by file name.

    :raises OSError: if it cannot be read. :raises ValueError: if it is no such archive, or one is not JSON.
    """
    import zstandard

    try:
        return _read_members(archive)
    except (tarfile.TarError, zstandard.ZstdError) as error:
        raise ValueError(f"{archive.name} is damaged: {error}") from None


def _read_members(archive: Path) -> Mapping[str, Any]:
    import zstandard

    found: dict[str, Any] = {}
    with (
        archive.open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as stream,
        tarfile.open(fileobj=stream, mode="r|") as members,
    ):
        for member in members:
            match = _SCHEMA_FILE.search(member.name)
            content = members.extractfile(member) if match and member.isreg() else None
            if match and content is not None:
                found[match[1]] = json.loads(content.read())
            elif found and "/cloudinit/config/" not in member.name:
                break  # a folder's files stand together
    return found


def _check_preseed(text: str) -> Checked:
    faults = []
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        words = line.split(maxsplit=3)
        if words and not words[0].startswith("#") and (len(words) < 3 or words[2] not in _PRESEED_TYPES):
            faults.append(f"line {number}: not OWNER QUESTION TYPE VALUE: {line:.80}")
    if faults:
        return Checked(by="the grammar of debconf-set-selections(1)", faults=tuple(faults[:_MOST_FAULTS]))
    try:
        run(["debconf-set-selections", "--checkonly"], timeout=30, input=text)
    except MissingProgramError:
        return Checked(by="it has the form of a preseed; debconf-set-selections is not installed here")
    except CommandError as error:
        return Checked(by="debconf-set-selections", faults=(error.details or error.brief,))
    return Checked(by="right, by debconf-set-selections --checkonly")


def _check_kickstart(text: str, definition: VmDefinition) -> Checked:
    try:
        parser, version = (importlib.import_module(f"pykickstart.{name}") for name in ("parser", "version"))
        errors = importlib.import_module("pykickstart.errors")
    except ImportError:
        return Checked(by="not checked: the Python package pykickstart is not installed")
    dialect = _dialect(definition.distro)
    reader = parser.KickstartParser(version.makeVersion(dialect))
    try:
        reader.readKickstartFromString(text)
    except errors.KickstartError as error:
        return Checked(by=f"pykickstart ({dialect})", faults=(" ".join(str(error).split()),))
    return Checked(by=f"right, by pykickstart ({dialect})")


def _dialect(distro: str) -> str:
    """Return pykickstart's name of the kickstart that *distro* reads: the newest of its kind, if it is not known."""
    family, _, release = distro.partition("-")
    prefix = "F" if family == "fedora" else "RHEL"
    handlers = Path(importlib.import_module("pykickstart.handlers").__path__[0])
    pattern = re.compile(rf"{prefix.lower()}(\d+)\.pyc?\Z")
    known = sorted(int(match[1]) for path in handlers.iterdir() if (match := pattern.match(path.name)))
    wanted = release.partition(".")[0]
    return f"{prefix}{wanted if wanted.isdigit() and int(wanted) in known else known[-1]}"
