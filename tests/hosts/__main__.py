"""Says whether this machine can start hosts: exit code 0, or 1 and why not."""

import sys

from hosts.able import why_not

if why := why_not():
    sys.exit(f"no hosts on this machine: {why}")
