"""The services container as data: what it is made of, how it starts, what Docker has to grant it.

The builder lays a Debian base with :data:`PACKAGES`, unpacks the wheels of ``requirements.lock`` into
:data:`SITE`, copies :data:`SOURCES` and compiles with :data:`COMPILE`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

NAME = "pxeboot_stack"
TAG = f"{NAME}:latest"
SUITE = "trixie"
PYTHON_VERSION = "3.13"  # of the suite; the wheels are chosen for it

# python3-minimal has no http and no asyncio. Nobody needs a shell tool of iproute2 in there.
# Jinja2 comes as a package, uvicorn's parser as a wheel: Debian's httptools is of 2019, with a parser nobody maintains.
PACKAGES = ("dnsmasq-base", "nginx-light", "python3", "python3-jinja2")

ROOT = PurePosixPath("/opt/pvmlab")
SITE = ROOT / "site"  # the wheels
DIST_PACKAGES = PurePosixPath("/usr/lib/python3/dist-packages")  # Debian's
IPXE = ROOT / "ipxe"  # the network boot programs of all architectures
SBOM = ROOT / "sbom.spdx.json"  # which packages are in the image (SPDX 2.3)

# Packages of the repository that go below ROOT, by name: only their *.py files and templates.
SOURCES = ("contracts", "pxeboot_stack")
# Below ROOT / "pxeboot_stack": data for builders on the host.
NOT_COPIED = ("container.py", "provisioner.py", "provisioner", "requirements.lock")

# The root file system is read-only, so nothing is compiled later: without this each start compiles everything.
COMPILE = ("python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(ROOT))

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": f"{ROOT}:{SITE}:{DIST_PACKAGES}",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
}
ENTRYPOINT = ("/usr/bin/python3", "-S", "-m", "pxeboot_stack")  # -S: no site packages, PYTHONPATH names all we use


def labels(*, version: str, source: str, created: str) -> dict[str, str]:
    """Return the image's labels, by OCI's names (image-spec, annotations.md).

    :param version: pvmlab's. :param source: digest of the sources in the image, which stands for a revision: a commit's
        name would be another one though nothing in the image changed. :param created: RFC 3339, the date of the newest
        package inside; the time of the build is nowhere, so that equal inputs make equal images.
    """
    return {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.description": "DHCP, TFTP, DNS, HTTP and the boot handler of a pvmlab provisioner",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": source,
        "org.opencontainers.image.created": created,
    }


# The service `health` writes the file while all others answer (pxeboot_stack.health.FRESH); asking costs a shell.
HEALTHY = "/run/pvmlab/healthy"
HEALTH_COMMAND = f"test -n \"$(find {HEALTHY} -newermt '-30 seconds')\""
HEALTH_INTERVAL = 30  # seconds
HEALTH_TIMEOUT = 20  # seconds; a busy emulated host needs some to start a process in the container
HEALTH_RETRIES = 3

# Shared directories of the host, at the same place in the container; True: we write there.
SHARES = {"images": False, "initrds": False, "vms": False, "status": True, "config": False, "templates": False}

# Each is needed: tests/integration/services_container/test_capabilities.py leaves out one at a time.
CAPABILITIES = (
    "NET_BIND_SERVICE",  # ports 53, 67, 69 and 80
    "NET_ADMIN",  # dnsmasq answers clients that have no address yet by writing into the ARP table
    "NET_RAW",  # dnsmasq's router advertisements (ICMPv6), where the lab has IPv6
    "SETUID",  # dnsmasq and nginx's worker give up root
    "SETGID",
    "CHOWN",  # nginx gives its temporary directories to its worker, dnsmasq its process id file
    "KILL",  # we end nginx's worker, the watcher has dnsmasq read its files again
    "DAC_OVERRIDE",  # definitions belong to the person who runs the lab, mode 0600; so does the status directory
)


def docker_run_arguments(image: str = TAG) -> list[str]:
    """Return the arguments of ``docker`` that run the container in the foreground, for the provisioner's unit.

    :param image: name or id of the image.
    """
    volumes = [
        f"--volume=/mnt/host/{tag}:/mnt/host/{tag}{'' if writable else ':ro'}" for tag, writable in SHARES.items()
    ]
    return [
        "run", "--rm", f"--name={NAME}",
        "--network=host",
        "--read-only",
        "--tmpfs=/run:rw,nosuid,nodev,noexec,size=16m,mode=755",
        "--tmpfs=/tmp:rw,nosuid,nodev,noexec,size=16m",
        "--cap-drop=ALL",
        *[f"--cap-add={name}" for name in CAPABILITIES],
        "--security-opt=no-new-privileges",
        "--pids-limit=64",
        "--stop-timeout=3",
        *volumes,
        image,
    ]  # fmt: skip
