"""Several machines on one kernel, so that `ray up` and what can happen to machines are tested without a cloud.

Not a simulation: each host has processes, a file system, an address and an sshd of its own, by Linux's namespaces, and
pulling its plug ends all of it at once. A host takes about as much memory as what runs in it. ``PYTHONPATH=tests
python -m hosts`` says whether a machine can.
"""
