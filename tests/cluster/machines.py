"""Machines on one box, for tests of real clusters: each has an address, a host name, a process table, a /tmp, a home
and an sshd of its own. They are namespaces of Linux, so this needs root; `why_not()` says what is missing.

    with machines.network(tmp_path) as network:
        head, worker = network.up(), network.up()
        head.exec("ray", "start", "--head")
        worker.cut()  # its cable; heal() puts it back, down() is a power failure

Programs, the checkout and `tmp_path` are those of this machine, as on a shared drive. Whoever started a machine takes
it along when it ends, even by kill -9: what is left then is a bridge without ports, `ip link del raylabN`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("ip", "unshare", "nsenter", "setpriv", "ssh", "sshd", "ssh-keygen", "rsync")
HOME = "/tmp/home"  # on a machine, where /tmp is its own
PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net")
FIRST, LAST = 101, 250  # last byte of a machine's address, where none is asked for
BOOT_SECONDS = 30
# For which kind of processor BLAS computes: another one rounds in another way.
ARITHMETIC = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}

SSHD = """\
HostKey {keys}/host
PidFile none
AuthorizedKeysFile {keys}/id.pub .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
"""

# What a machine does before its sshd: the mounts are its own, nobody else sees them.
BOOT = """\
set -eu
hostname {name}
mount --bind {own} {own}
mkdir -p {own}{folder} && mount --bind {folder} {own}{folder}
mount --rbind {own}/tmp /tmp
mount -t tmpfs tmpfs /dev/shm
mount --bind {keys}/hosts /etc/hosts
mount --bind {keys}/passwd /etc/passwd
: > {own}/resolv.conf
mount --bind {own}/resolv.conf /etc/resolv.conf
exec {sshd} -D -e -f {keys}/sshd_config
"""


def why_not() -> str | None:
    """Why there can be no machines here, or None."""
    if sys.platform != "linux" or os.geteuid():
        return "machines are namespaces of Linux, made by root"
    missing = [program for program in NEEDED if not shutil.which(program)]
    if missing:
        return f"machines need {', '.join(missing)}: apt-get install openssh-server rsync iproute2"
    tried = subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network that machines can be put on; all of them go down with the block. They see `folder` where it is here."""
    made = Network(folder.resolve())
    try:
        yield made
    finally:
        for machine in list(made.machines):
            machine.down()
        _call("ip", "link", "del", made.bridge)


class Network:
    """A switch. `subnet` is the first three bytes of the addresses on it; this machine has the one that ends in 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.key = self.keys / "id"  # the private key that opens every machine
        self.machines: list[Machine] = []
        number = _free_bridge()
        self.bridge, self.subnet = f"raylab{number}", f"10.77.{number}"
        # Of its own: else it is the lowest of its ports', and changes as machines come and go, which others learn late.
        _call("ip", "link", "set", self.bridge, "address", f"02:77:00:00:00:{number:02x}")
        _call("ip", "addr", "add", f"{self.subnet}.1/24", "dev", self.bridge)
        _call("ip", "link", "set", self.bridge, "up")
        self._write_keys()

    def up(self, address: str | None = None) -> Machine:
        """A machine, when its sshd answers. address: one of `subnet`; None: the next free one."""
        taken = {machine.address for machine in self.machines}
        free = (f"{self.subnet}.{byte}" for byte in range(FIRST, LAST) if f"{self.subnet}.{byte}" not in taken)
        machine = Machine(self, address or next(free))
        self.machines.append(machine)
        machine.wait()
        return machine

    def _write_keys(self) -> None:
        self.keys.mkdir(parents=True)
        for name in ("id", "host"):
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.keys / name))
        (self.keys / "sshd_config").write_text(SSHD.format(keys=self.keys))
        names = [f"{self.subnet}.{byte} {name_of(byte)}" for byte in range(2, LAST)]
        (self.keys / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        users = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in users if not line.startswith(("root:", "ubuntu:"))]
        home = [*(f"{user}:x:0:0:{user}:{HOME}:/bin/bash" for user in ("root", "ubuntu")), *others]
        (self.keys / "passwd").write_text("\n".join([*home, ""]))
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it


class Machine:
    """One machine. It is on as soon as it is made; `wait` for its sshd."""

    def __init__(self, network: Network, address: str) -> None:
        self.address = address
        byte = int(address.rpartition(".")[2])
        self.name = name_of(byte)
        self._network = network
        self._port = f"{network.bridge}p{byte}"
        self.own = _fresh(network.folder / "machines", self.name)  # its /tmp is own/tmp
        (self.own / "tmp/home").mkdir(parents=True)
        (self.own / "tmp").chmod(0o1777)
        exports = [f"export {name}={value}\n" for name, value in {"PATH": PATH, **ARITHMETIC}.items()]
        (self.own / "tmp/home/.bashrc").write_text("".join(exports))
        self._process = self._boot()
        self._first = self._first_process()
        card = [
            "address",
            "02:00:" + ":".join(f"{int(part):02x}" for part in address.split(".")),
        ]  # known by its address
        _call("ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0", *card, "netns", self._first)
        _call("ip", "link", "set", self._port, "master", network.bridge, "up")
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _call("nsenter", "--target", self._first, "--net", "ip", *words.split())

    def exec(self, *command: str, check: bool = True, timeout: float = 120, **env: str) -> str:
        """What a command prints on it, errors too. Raises AssertionError where it fails, unless `check` is off."""
        process = self.start(*command, **env)
        try:
            out, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert not check or process.returncode == 0, f"{self.name}: {' '.join(command)}: {process.returncode}\n{out}"
        return out

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """The same, in the background: the handle has its output."""
        enter = ["nsenter", "--target", self._first, *NAMESPACES, "env", "-C", HOME]
        variables = {"HOME": HOME, "PATH": PATH, "LANG": "C.UTF-8", "RAY_USAGE_STATS_ENABLED": "0", **ARITHMETIC, **env}
        pipe = subprocess.PIPE
        return subprocess.Popen([*enter, *command], env=variables, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def cut(self) -> None:
        """Pull its cable."""
        _call("ip", "link", "set", self._port, "down")

    def heal(self) -> None:
        """Put it back."""
        _call("ip", "link", "set", self._port, "up")

    def down(self) -> None:
        """A power failure: every process of it is gone at once, and so is its link."""
        self._process.kill()
        self._process.wait()
        # The kernel takes its time to end a network: nothing answers at the address from now on.
        subprocess.run(["ip", "link", "del", self._port], capture_output=True)
        self._network.machines.remove(self)

    def wait(self) -> None:
        """Until its sshd answers."""
        deadline = time.monotonic() + BOOT_SECONDS
        log = self.own / "sshd.log"
        while "Server listening" not in log.read_text():
            assert self._process.poll() is None and time.monotonic() < deadline, f"{self.name}: {log.read_text()}"
            time.sleep(0.02)

    def _boot(self) -> subprocess.Popen[bytes]:
        folders = {"own": self.own, "folder": self._network.folder, "keys": self._network.keys}
        script = BOOT.format(name=self.name, sshd=shutil.which("sshd"), **folders)
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
        with (self.own / "sshd.log").open("w") as log:
            return subprocess.Popen([*command, "bash", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _first_process(self) -> str:
        """The process that is number 1 on the machine, by its number here."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while not (found := children.read_text().split()):
            assert self._process.poll() is None, (self.own / "sshd.log").read_text()
            time.sleep(0.01)
        return found[0]


def name_of(byte: int) -> str:
    """The host name of the machine whose address ends so."""
    return f"node{byte}"


def _free_bridge() -> int:
    """Make a bridge that nobody else on this machine has: its number."""
    for number in range(255):
        done = subprocess.run(["ip", "link", "add", f"raylab{number}", "type", "bridge"], capture_output=True)
        if done.returncode == 0:
            return number
    raise AssertionError("255 bridges are taken: `ip link` lists them")


def _fresh(parent: Path, name: str) -> Path:
    """A folder that was not there: an address may be used again by a machine that knows nothing of the one before."""
    parent.mkdir(exist_ok=True)
    count = len(list(parent.glob(f"{name}*")))
    folder = parent / (f"{name}.{count}" if count else name)
    folder.mkdir()
    return folder


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
