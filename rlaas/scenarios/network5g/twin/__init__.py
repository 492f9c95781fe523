"""A torch twin of the network5g engine: the same networks as tensors, on a CPU or a GPU.

The rest of network5g imports this package only where it is asked for tensors, so torch is loaded by nobody else.
"""

from rlaas.scenarios.network5g.twin.networks import TorchNetwork5G, TwinStep

__all__ = ["TorchNetwork5G", "TwinStep"]
