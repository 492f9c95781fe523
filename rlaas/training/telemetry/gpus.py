"""Utilisation and memory of the GPUs, by NVML."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Any

__all__ = ["Gpus", "find_nvml"]

# Ray brings NVIDIA's bindings along; an installed copy goes before.
_BINDINGS = ("pynvml", "ray._private.thirdparty.pynvml")


def find_nvml() -> Any:
    """NVIDIA's bindings with the driver's library loaded, or None on a machine without one."""
    for name in _BINDINGS:
        try:
            nvml = importlib.import_module(name)
        except ImportError:
            continue
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return None
        return nvml
    return None


class Gpus:
    """The GPUs that this process may use.

    Args:
        nvml: NVIDIA's bindings, loaded; None for no GPU at all.
        environment: its ``CUDA_VISIBLE_DEVICES`` says which are meant; without it all are.
    """

    def __init__(self, nvml: Any, environment: Mapping[str, str] = os.environ) -> None:
        self._nvml = nvml
        self._handles: dict[int, Any] = {}
        if nvml is not None:
            self._handles = _handles(nvml, environment.get("CUDA_VISIBLE_DEVICES"))

    def sample(self) -> dict[str, float]:
        """``gpu<index>_utilization`` (0 to 1) and ``gpu<index>_memory_{used,total}_bytes`` by the process's own index.

        What a GPU does not tell (a slice of one has no utilisation of its own) is left out, not zero.
        """
        found: dict[str, float] = {}
        for index, handle in self._handles.items():
            with contextlib.suppress(self._nvml.NVMLError):
                found[f"gpu{index}_utilization"] = self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found[f"gpu{index}_memory_used_bytes"] = float(memory.used)
                found[f"gpu{index}_memory_total_bytes"] = float(memory.total)
        return found

    def close(self) -> None:
        """Let go of the driver's library."""
        if self._nvml is not None:
            nvml, self._nvml, self._handles = self._nvml, None, {}
            nvml.nvmlShutdown()


def _handles(nvml: Any, visible: str | None) -> dict[int, Any]:
    """Handles by the index that CUDA gives them in this process."""
    if visible is None:
        names = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    else:
        names = [name.strip() for name in visible.split(",")]
    handles: dict[int, Any] = {}
    for index, name in enumerate(names):
        try:
            if name.isdecimal():
                handles[index] = nvml.nvmlDeviceGetHandleByIndex(int(name))
            else:
                handles[index] = nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError:
            break  # as CUDA does: what stands behind an entry that is no device is not seen either
    return handles
