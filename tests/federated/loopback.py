"""A SuperLink and SuperNodes on this machine, with TLS and node keys, for the length of a block."""

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federated import SWITCHES

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def certificate(folder):
    """Make an authority and a server certificate for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("test CA", "server")]

    def build(subject, public, extension):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(names[0])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=False)
        )

    ca = build(names[0], ca_key.public_key(), x509.BasicConstraints(True, None))
    ca = ca.sign(ca_key, hashes.SHA256())
    hosts = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    server = build(names[1], key.public_key(), hosts).sign(ca_key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(_private(key, serialization.PrivateFormat.PKCS8))


def node_key(folder, number):
    """Make the key of a SuperNode; give the path of its public half."""
    key = ec.generate_private_key(ec.SECP384R1())
    (folder / f"node{number}").write_bytes(_private(key, serialization.PrivateFormat.OpenSSH))
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path = folder / f"node{number}.pub"
    path.write_bytes(public)
    return path


def _private(key, form):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Loopback:
    """Processes of a deployment; all are ended at the end of the block, with their children."""

    def __init__(self, folder, nodes):
        self.folder, self.nodes = folder, nodes
        self.processes = []
        self.port = free_port()
        self.env = {**os.environ, **SWITCHES, "FLWR_HOME": str(folder / "home")}
        # The app itself is found where it is installed, not in a copy.
        self.env["PYTHONPATH"] = str(PROJECT)
        self.env["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self):
        certificate(self.folder)
        (self.folder / "home").mkdir()
        (self.folder / "home" / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.folder / "ca.pem"}"\n'
        )
        tls = ("--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem")
        self._start(
            "flower-superlink",
            *(*tls, "--ssl-keyfile", "server.key", "--enable-supernode-auth"),
            *("--disable-runtime-dependency-installation", "--port", str(self.port)),
        )
        self._wait_for(self.port)
        for number, config in enumerate(self.nodes):
            self.flwr("supernode", "register", str(node_key(self.folder, number)), "here")
            self._start(
                "flower-supernode",
                *("--root-certificates", "ca.pem", "--superlink", f"127.0.0.1:{self.port}"),
                *("--auth-supernode-private-key", f"node{number}", "--port", str(free_port())),
                *("--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem"),
                *("--ssl-keyfile", "server.key"),
                *("--node-config", " ".join(f"{k}={json.dumps(v)}" for k, v in config.items())),
            )

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        deadline = time.monotonic() + 20
        while self.left() and time.monotonic() < deadline:
            for process in self.processes:
                process.poll()
            time.sleep(0.2)
        self.killed = self.left()
        for number in self.killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self.processes:
            process.wait(20)

    def left(self):
        """Ids of the processes that are of this deployment, whoever started them."""
        mark = f"FLWR_HOME={self.env['FLWR_HOME']}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def _start(self, program, *arguments):
        log = (self.folder / f"{program}{len(self.processes)}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                [BIN / program, *arguments],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        log.close()

    def _wait_for(self, port):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.2)
        raise TimeoutError(self.logs())

    def flwr(self, *arguments):
        """Run a command of Flower; give what it printed."""
        done = subprocess.run(
            [BIN / "flwr", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self):
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def run(self, app, config, until, timeout=400):
        """Run an app until it has written a file."""
        given = self.folder / "run.toml"
        given.write_text("\n".join(f"{key} = {json.dumps(v)}" for key, v in config.items()))
        started = json.loads(
            self.flwr("run", str(app), "here", "--run-config", str(given), "--format", "json")
        )
        assert started["success"], started
        deadline = time.monotonic() + timeout
        while not until.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(self.logs())
            time.sleep(0.5)
