"""sshd and rsync of the hosts: this machine's, or out of Debian's packages, which are unpacked and not installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PACKAGES = ("openssh-server", "openssh-sftp-server", "rsync", "libwrap0", "libpopt0", "libxxhash0")
"""With the libraries that a small image lacks."""


def there() -> bool:
    """Whether this machine has them."""
    return Path("/usr/sbin/sshd").exists() and shutil.which("rsync") is not None


def unpacked(folder: Path) -> Path | None:
    """Fetch and unpack them.

    Args:
        folder: an empty one.

    Returns:
        The root below which they lie; None: this machine has them.

    Raises:
        RuntimeError: they cannot be fetched.
    """
    if there():
        return None
    fetched, root = folder / "fetched", folder / "root"
    fetched.mkdir(parents=True)
    fetched.chmod(0o777)  # apt fetches as a user of its own
    said = _apt("download", "-qq", *PACKAGES, at=fetched)
    if said:
        _apt("update", "-qq", at=fetched)  # it knew no packages, or old ones
        said = _apt("download", "-qq", *PACKAGES, at=fetched)
    if said:
        raise RuntimeError(f"apt-get download: {said}")
    for package in fetched.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return root


def _apt(*words: str, at: Path) -> str:
    done = subprocess.run(["apt-get", *words], cwd=at, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()[-500:] or "failed"
