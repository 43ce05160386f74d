"""Stands for ``ssh -L``: forwards the port as OpenSSH does, to this machine, and runs a command if there is one.

Tests write it to a folder on PATH as ``ssh``. ``$STUB_SSH`` is a folder: each call leaves its words there, and a file
``refuse`` in it holds what is said instead of a tunnel; ``hang``: nothing is said, and nothing opened.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def main(words: list[str]) -> None:
    folder = Path(os.environ["STUB_SSH"])
    (folder / f"call-{time.time_ns()}").write_text(json.dumps({"pid": os.getpid(), "words": words}))
    if (folder / "refuse").exists():
        sys.stderr.write((folder / "refuse").read_text())
        sys.exit(255)
    if (folder / "hang").exists():
        time.sleep(600)
    here, port, there, remote = words[words.index("-L") + 1].split(":")
    if "-N" in words:
        _forward(here, int(port), there, int(remote))
    threading.Thread(target=_forward, args=(here, int(port), there, int(remote)), daemon=True).start()
    command = words[-1]
    sys.exit(subprocess.run(["/bin/sh", "-c", command], check=False).returncode)


def _forward(here: str, port: int, there: str, remote: int) -> None:
    with socket.create_server((here, port)) as listens:
        while True:
            taken, _ = listens.accept()
            try:
                onward = socket.create_connection((there, remote), timeout=5)
            except OSError:
                taken.close()
                continue
            onward.settimeout(None)
            for pair in ((taken, onward), (onward, taken)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
