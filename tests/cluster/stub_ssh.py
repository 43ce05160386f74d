"""Stands for ``ssh -N -L``: forwards the port as OpenSSH does, to this machine; says what it was called with.

Tests write it to a folder on PATH as ``ssh``. ``$STUB_SSH`` is a folder: each call leaves its words there, and a file
``refuse`` in it holds what is said instead of a tunnel; ``hang``: nothing is said, and nothing opened.
"""

from __future__ import annotations

import json
import os
import socket
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
    with socket.create_server((here, int(port))) as listens:
        while True:
            taken, _ = listens.accept()
            try:
                onward = socket.create_connection((there, int(remote)), timeout=5)
            except OSError:
                taken.close()
                continue
            onward.settimeout(None)
            for pair in ((taken, onward), (onward, taken)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
