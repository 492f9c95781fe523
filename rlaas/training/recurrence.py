"""A memory for policies that do not see everything: an LSTM whose state is one row per decision maker."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Memory"]


class Memory(nn.Module):
    """A long short-term memory (Hochreiter and Schmidhuber 1997), one step or a whole rollout at a time.

    Args:
        n_in: inputs.
        hidden: outputs; the state is twice as wide: outputs, then cells.
    """

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.width = hidden, 2 * hidden
        self.inward = nn.Linear(n_in, 4 * hidden)
        self.across = nn.Linear(hidden, 4 * hidden, bias=False)
        for weight in (self.inward.weight, self.across.weight):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate)
        nn.init.zeros_(self.inward.bias)
        # Remember at first (Jozefowicz et al. 2015).
        nn.init.ones_(self.inward.bias[hidden : 2 * hidden])

    def output(self, state: Tensor) -> Tensor:
        """Outputs [n, hidden] of a state [n, 2 * hidden]."""
        return state[..., : self.hidden]

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """The state [n, 2 * hidden] after inputs [n, n_in]."""
        return self._advance(self.inward(x), state)

    def scan(self, x: Tensor, state: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of many steps.

        Args:
            x: [steps, n, n_in].
            state: before the first step [n, 2 * hidden].
            fresh: [steps, n], 1 where a step is the first of an episode and remembers nothing.

        Returns:
            Outputs [steps, n, hidden] and the state afterwards [n, 2 * hidden].
        """
        inward = self.inward(x)
        outputs = []
        for t in range(len(x)):
            state = self._advance(inward[t], state * (1.0 - fresh[t])[:, None])
            outputs.append(self.output(state))
        return torch.stack(outputs), state

    def _advance(self, inward: Tensor, state: Tensor) -> Tensor:
        hidden, cell = state.chunk(2, dim=-1)
        enter, keep, leave, new = (inward + self.across(hidden)).chunk(4, dim=-1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.cat((torch.sigmoid(leave) * torch.tanh(cell), cell), dim=-1)
