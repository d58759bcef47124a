"""Hosts to reach by ssh: real sshds, each in a network namespace of its own. They share files unless told otherwise."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_SSHD: Final = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
_IP: Final = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")


def _lacks() -> str:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if not (_SSHD and _IP and shutil.which("ssh") and shutil.which("ssh-keygen")):
        return "sshd, ssh or ip is not installed: apt-get install openssh-server iproute2"
    done = subprocess.run([_IP, "netns", "add", probe := f"probe{os.getpid()}"], capture_output=True, check=False)
    subprocess.run([_IP, "netns", "del", probe], capture_output=True, check=False)
    return "" if done.returncode == 0 else "no network namespace can be made here"


needs_hosts = pytest.mark.skipif(bool(lacks := _lacks()), reason=lacks)
_NUMBERS: Final = itertools.count()
_ROOT: Final = Path(__file__).resolve().parent.parent
# By these numpy and torch choose how they compute.
_KERNELS: Final = ("OPENBLAS_", "OMP_", "MKL_")
_CONFIG: Final = """\
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
ForceCommand PATH={python}:/usr/bin:/bin sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass
class SshHost:
    """A host that answers at an address of its own; its python3 is the one that runs this.

    `folder` holds its keys, and `known_hosts` that of its clients. What runs there sees the folders of this machine,
    but for those that are `hidden`: these are empty there.
    """

    name: str
    address: str
    folder: Path
    hidden: tuple[Path, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """What ssh needs to get in."""
        return (
            "-F", "none", "-i", str(self.folder / "key"), "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
        )  # fmt: skip

    @property
    def config(self) -> Path:
        """A configuration file for ssh, in which the host is called by its name."""
        path, key, known = (self.folder / name for name in ("config", "key", "known_hosts"))
        path.write_text(
            f"Host {self.name}\nHostName {self.address}\nUser root\nIdentityFile {key}\n"
            f"UserKnownHostsFile {known}\nConnectTimeout 5\nServerAliveInterval 5\n",
            encoding="utf-8",
        )
        return path

    def worker(self, folder: Path) -> str:
        """What xdist's `--tx` takes for a worker in a folder of the host, with this machine's packages."""
        python = f"env PYTHONPATH={_ROOT} {sys.executable}"
        spec = f"ssh={self.name}//ssh_config={self.config}//python={python}//chdir={folder}//env:HOME={folder.parent}"
        kernels = [f"env:{key}={value}" for key, value in os.environ.items() if key.startswith(_KERNELS)]
        return "//".join([spec, *kernels])

    def words(self, *command: str) -> list[str]:
        """A command that runs another one in the host's network, as root of this machine."""
        return [str(_IP), "netns", "exec", self.name, *command]

    def know(self) -> None:
        """Have clients know the host's key, as it is now."""
        key = (self.folder / "host_key.pub").read_text(encoding="ascii")
        (self.folder / "known_hosts").write_text(f"{self.address} {key}", encoding="ascii")

    def new_key(self) -> None:
        """Give the host another key, which its clients do not know."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        _keygen(self.folder / "host_key")

    def start(self) -> None:
        """Start the sshd; returns when it answers."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists.
        hide = "".join(f"mount -t tmpfs none {shlex.quote(str(path))} && " for path in self.hidden)
        sshd = shlex.join([str(_SSHD), "-f", str(self.folder / "sshd_config")])
        # `ip netns exec` gives what it runs a view of the file systems of its own.
        subprocess.run(self.words("sh", "-c", f"{hide}exec {sshd}"), check=True)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.address, 22), timeout=1):
                return
            assert time.monotonic() < end, "sshd keeps silent"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the sshd and all its connections."""
        found = subprocess.run([str(_IP), "netns", "pids", self.name], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """While this lasts the cable is out: what is sent goes nowhere, and nobody is told."""
        link = f"m-{self.name}"
        subprocess.run([str(_IP), "link", "set", link, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run([str(_IP), "link", "set", link, "up"], check=True)


@contextlib.contextmanager
def ssh_host(folder: Path, hidden: tuple[Path, ...] = ()) -> Iterator[SshHost]:
    """A host in a namespace, whose sshd runs."""
    # Interfaces are the machine's: tests that run at once must not share one, and those of a host that is gone go a
    # moment later. Names have at most 15 letters.
    number = next(_NUMBERS)
    place = (os.getpid() * 8 + number % 8) % (1 << 18)
    name = f"h{os.getpid()}n{number}"
    here, there = (f"10.{208 + (place >> 14)}.{place >> 6 & 255}.{(place & 63) * 4 + end}" for end in (1, 2))
    host = SshHost(name, there, folder, hidden)
    folder.mkdir(parents=True, exist_ok=True)
    ip = str(_IP)
    for words in (
        [ip, "netns", "add", name],
        [ip, "link", "add", f"m-{name}", "type", "veth", "peer", "name", "eth0", "netns", name],
        [ip, "address", "add", f"{here}/30", "dev", f"m-{name}"],
        [ip, "link", "set", f"m-{name}", "up"],
        host.words(ip, "address", "add", f"{there}/30", "dev", "eth0"),
        host.words(ip, "link", "set", "eth0", "up"),
        host.words(ip, "link", "set", "lo", "up"),
    ):
        subprocess.run(words, check=True)
    try:
        _keygen(folder / "key")
        _keygen(folder / "host_key")
        config = _CONFIG.format(address=there, folder=folder, python=Path(sys.executable).parent)
        (folder / "sshd_config").write_text(config, encoding="utf-8")
        host.know()
        host.start()
        yield host
    finally:
        host.stop()
        for words in ([ip, "link", "del", f"m-{name}"], [ip, "netns", "del", name]):
            subprocess.run(words, check=False)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
