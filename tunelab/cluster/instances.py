"""EC2 instance types that a cluster file is likely to name: virtual CPUs, GPUs and the memory of one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SMALL = {"nano": 2, "micro": 2, "small": 2, "medium": 2, "large": 2}
_CPU_FAMILIES = frozenset({"t3", "m5", "m6i", "m7i", "c5", "c6i", "c7i", "r5", "r6i"})
_ONE_TO_EIGHT = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_GPU_FAMILIES: dict[str, tuple[str, float, dict[str, int]]] = {
    "g4dn": ("T4", 16, {"12xlarge": 4}),
    "g5": ("A10G", 24, _ONE_TO_EIGHT),
    "g6": ("L4", 24, _ONE_TO_EIGHT),
    "g6e": ("L40S", 48, _ONE_TO_EIGHT),
    "p3": ("V100", 16, {"8xlarge": 4, "16xlarge": 8}),
    "p4d": ("A100", 40, {"24xlarge": 8}),
    "p4de": ("A100", 80, {"24xlarge": 8}),
    "p5": ("H100", 80, {"48xlarge": 8}),
}
"""Family -> GPU, GB of one, and how many of them a size has when it is not one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """What a machine of an instance type has."""

    name: str
    """Such as ``g4dn.xlarge``."""
    cpus: int
    """Virtual CPUs."""
    gpus: int = 0
    """GPUs."""
    gpu: str = ""
    """Which, such as ``T4``."""
    gpu_gb: float = 0
    """GB of memory of one of them."""

    def describe(self) -> str:
        """``4 CPUs and 1 GPU (T4, 16 GB)``."""
        gpus = f"{self.gpus} GPU{'s' if self.gpus != 1 else ''} ({self.gpu}, {self.gpu_gb:g} GB)"
        return f"{self.cpus} CPUs and {gpus if self.gpus else 'no GPU'}"


def instance_of(name: str) -> Instance | None:
    """What an instance type has; None where it is not in the table.

    Args:
        name: such as ``g4dn.xlarge``.
    """
    family, _, size = name.partition(".")
    if family in _CPU_FAMILIES:
        small = size in _SMALL and (family == "t3" or size == "large")
        cpus = _SMALL[size] if small else _cpus(size)
        return Instance(name=name, cpus=cpus) if cpus else None
    if family in _GPU_FAMILIES and (cpus := _cpus(size)):
        gpu, memory, several = _GPU_FAMILIES[family]
        return Instance(name=name, cpus=cpus, gpus=several.get(size, 1), gpu=gpu, gpu_gb=memory)
    return None


def _cpus(size: str) -> int:
    """Four for every ``xlarge``, of all families here; none of a size that is none."""
    found = re.fullmatch(r"([1-9][0-9]?)?xlarge", size)
    return 4 * int(found[1] or 1) if found else 0
