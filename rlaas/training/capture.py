"""Work of fixed shapes as one CUDA graph: a launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Captured"]

_EAGER_CALLS = 3
"""cuBLAS and the optimizer set up what they need in the first calls, which a graph cannot hold."""


class Captured:
    """Calls ``work``; on a CUDA device, after a few calls, by replaying what it launched.

    ``work`` must ask the device for nothing, depend on nothing on the host that changes, draw no random numbers, and
    write its state in place: it is executed once more by each replay, on the same memory.

    Args:
        work: takes tensors whose shapes never change and returns one.
        device: where they are.
    """

    def __init__(self, work: Callable[..., Tensor], device: torch.device) -> None:
        self._work, self._cuda = work, device.type == "cuda"
        self._calls = 0
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What ``work`` returns; the next call overwrites it."""
        if not self._cuda:
            return self._work(*inputs)
        if self._graph is None:
            if self._calls < _EAGER_CALLS:
                self._calls += 1
                return self._aside(inputs)
            self._inputs = [value.clone() for value in inputs]
            self._graph = torch.cuda.CUDAGraph()
            # Recording executes nothing.
            with torch.cuda.graph(self._graph):
                self._output = self._work(*self._inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._output

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Call ``work`` on a stream of its own, as CUDA wants it before a capture."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        here, aside = torch.cuda.current_stream(), self._stream
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            output = self._work(*inputs)
        here.wait_stream(aside)
        return output
