"""A whole federation on this machine, with TLS and node authentication: one SuperLink, SuperNodes, one run.

    python examples/flower_app/run_loopback.py --nodes 5 --lying 1 --rounds 10
    python examples/flower_app/run_loopback.py --app examples/flower_fedavg --rounds 5

Keys, certificates and Flower's own files go to a folder of their own and are removed at the end.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from certificates import make_authority_and_server, make_node_key

APP = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent  # Flower's commands, of this environment


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--app", type=Path, default=APP, help="the folder of the Flower app to run")
    given.add_argument("--nodes", type=int, default=5)
    given.add_argument("--lying", type=int, default=1, help="how many nodes lie")
    given.add_argument("--crashing", type=int, default=0, help="how many nodes crash; both together are f")
    given.add_argument("--rounds", type=int, default=10)
    given.add_argument("--rule", default="rfa")
    given.add_argument("--timeout", type=float, default=60.0, help="seconds that a round waits for replies")
    given.add_argument("--stranger", action="store_true", help="try one more node, whose key nobody knows")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as name:
        federation(Path(name), options)


def federation(folder: Path, options: argparse.Namespace) -> None:
    """Keys, SuperLink, SuperNodes, one run."""
    port, n = free_port(), options.nodes
    states = ["crashes"] * options.crashing + ["lies"] * options.lying
    faults = dict(zip(range(n - len(states), n), states, strict=True))
    make_authority_and_server(folder)
    environment = settings(folder, port)
    with background(environment) as start:
        start(folder / "superlink.log", superlink(folder, port))
        wait_for(f"https://127.0.0.1:{port}/health", folder / "ca.pem", folder / "superlink.log")
        for i in range(n):
            key = folder / f"node-{i}"
            flwr(environment, "supernode", "register", str(make_node_key(key)), "loopback")
            own = {"partition-id": i, "num-partitions": n}
            own |= {"faulty": f'"{faults[i]}"'} if i in faults else {}
            start(folder / f"node-{i}.log", supernode(folder, port, key, own))
        if options.stranger:
            key = folder / "stranger"
            make_node_key(key)
            start(folder / "stranger.log", supernode(folder, port, key, {"partition-id": 0}))
        config = f"rounds={options.rounds} nodes={n} faulty={len(states)} "
        config += f"timeout={options.timeout} rule='{options.rule}'"
        flwr(environment, "run", str(options.app), "loopback", "--stream", "--run-config", config, show=True)
        if options.stranger:
            print(f"the stranger was told: {last_words(folder / 'stranger.log')}")


def superlink(folder: Path, port: int) -> list[str]:
    """The SuperLink: TLS, and only nodes whose keys are registered."""
    return [
        str(BIN / "flower-superlink"),
        "--host=127.0.0.1",
        f"--port={port}",
        f"--ssl-ca-certfile={folder / 'ca.pem'}",
        f"--ssl-certfile={folder / 'server.pem'}",
        f"--ssl-keyfile={folder / 'server.key'}",
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def supernode(folder: Path, port: int, key: Path, own: dict[str, object]) -> list[str]:
    """A SuperNode that checks the SuperLink's certificate and proves who it is by its key."""
    return [
        str(BIN / "flower-supernode"),
        f"--superlink=127.0.0.1:{port}",
        f"--root-certificates={folder / 'ca.pem'}",
        f"--auth-supernode-private-key={key}",
        "--host=127.0.0.1",
        f"--port={free_port()}",
        "--node-config=" + " ".join(f"{name}={value}" for name, value in own.items()),
    ]


def settings(folder: Path, port: int) -> dict[str, str]:
    """The environment of Flower's commands, with a home of their own where the SuperLink is named."""
    text = f"""[superlink]
default = "loopback"

[superlink.loopback]
address = "127.0.0.1:{port}"
root-certificates = "{folder / "ca.pem"}"
"""
    (folder / "config.toml").write_text(text)
    own = {"FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return {"OMP_NUM_THREADS": "1", **os.environ, **own, "PATH": path}


@contextmanager
def background(environment: dict[str, str]) -> Iterator[Callable[[Path, list[str]], None]]:
    """Starts commands in the background, with a log each, and ends them all on leaving."""
    children: list[subprocess.Popen[bytes]] = []

    def start(log: Path, command: list[str]) -> None:
        with log.open("w", encoding="utf-8") as file:
            children.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))

    try:
        yield start
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def flwr(environment: dict[str, str], *arguments: str, show: bool = False) -> None:
    done = subprocess.run(
        [str(BIN / "flwr"), *arguments], env=environment, capture_output=not show, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"flwr {' '.join(arguments)} failed.\n{done.stdout or ''}{done.stderr or ''}")


def last_words(log: Path) -> str:
    """Why a SuperNode gave up, if it did."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if "Failed" in line]
    return lines[-1] if lines else "nothing yet"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(address: str, authority: Path, log: Path, seconds: float = 60.0) -> None:
    """Wait until the address answers, by a certificate of that authority."""
    context, end = ssl.create_default_context(cafile=str(authority)), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, context=context, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    sys.exit(f"The SuperLink did not start.\n{log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
