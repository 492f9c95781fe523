"""A torch twin of the network5g engine: the same networks as tensors, on a CPU or a GPU.

Nothing else of network5g imports this package, so torch is loaded only by those who ask for it.
"""

from rlaas.scenarios.network5g.twin.networks import TorchNetwork5G, TwinStep

__all__ = ["TorchNetwork5G", "TwinStep"]
