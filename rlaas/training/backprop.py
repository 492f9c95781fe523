"""Forward and backward passes of policy and critics, written out.

Networks this small cost autograd more in bookkeeping than in arithmetic. Here a pass is a dozen calls, the gradients of
all parameters lie in one vector, and so do the parameters: clipping and Adam are one call each. The same calls run on
any device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from rlaas.training.networks import GatedMLP, TwinCritic

__all__ = ["FlatAdam", "FlatParameters", "Pass", "TwinPass"]


class FlatParameters:
    """Parameters as views of one vector, and their gradients as views of another.

    Attributes:
        value: what an optimizer updates [n], with ``value.grad`` the gradients [n].
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        members = list(parameters)
        sizes = [member.numel() for member in members]
        self.value = nn.Parameter(torch.cat([member.detach().reshape(-1) for member in members]))
        self.value.grad = torch.zeros_like(self.value)
        values, gradients = torch.split(self.value.detach(), sizes), torch.split(self.value.grad, sizes)
        for member, value, gradient in zip(members, values, gradients, strict=True):
            member.data = value.view(member.shape)
            member.grad = gradient.view(member.shape)
        self._members = members
        self._stiffness: Tensor | None = None
        self._anchor: Tensor | None = None

    def tie(self, mu: float, to: Collection[nn.Parameter]) -> None:
        """From now on let :meth:`pull` draw those of the parameters that are in ``to`` back to where they are.

        Args:
            mu: strength; 0 lets go.
            to: looked up by identity.
        """
        chosen = {id(parameter) for parameter in to}
        if mu == 0.0 or not chosen:
            self._stiffness = self._anchor = None
            return
        self._anchor = self.value.detach().clone()
        self._stiffness = torch.cat([torch.full((m.numel(),), mu if id(m) in chosen else 0.0) for m in self._members])
        self._stiffness = self._stiffness.to(self.value.device)

    def pull(self) -> None:
        """Add the gradient of ``mu / 2 ||value - anchor||^2``, see :meth:`tie`."""
        if self._anchor is not None and self._stiffness is not None:
            assert self.value.grad is not None
            self.value.grad.addcmul_(self.value.detach() - self._anchor, self._stiffness)

    def clip(self, most: float, *, first: int | None = None) -> None:
        """Scale the gradients down to a norm of at most ``most``.

        Args:
            most: largest norm.
            first: scale the first so many and the others each by themselves.
        """
        gradient = self.value.grad
        assert gradient is not None
        for part in (gradient,) if first is None else (gradient[:first], gradient[first:]):
            part.mul_((most / (torch.linalg.vector_norm(part) + 1e-6)).clamp(max=1.0))


class FlatAdam(torch.optim.Adam):
    """Adam over few long vectors that all have gradients: state and checkpoints are Adam's, a step is two calls each.

    ``torch.optim.Adam.step`` looks at every option in every step, which takes several times as long as the arithmetic.
    """

    @torch.no_grad()
    def advance(self) -> None:
        """Take a step, as :meth:`step` does."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for value in group["params"]:
                state = self.state[value]
                if not state:
                    state["step"] = torch.zeros((), device=value.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
                state["step"] += 1
                # Named: of both it would try the one for numbers first, and fetch a tensor's value for it.
                adam = torch.ops.aten._fused_adam_
                step = adam.tensor_lr if isinstance(group["lr"], Tensor) else adam.default
                step(
                    [value],
                    [value.grad],
                    [state["exp_avg"]],
                    [state["exp_avg_sq"]],
                    [],
                    [state["step"]],
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=0.0,
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )


class Pass:
    """One network's forward pass, and the backward pass that belongs to it.

    Args:
        net: its parameters must have gradients already, which :meth:`backward` overwrites.
    """

    def __init__(self, net: GatedMLP) -> None:
        self._net = net
        self._linear = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
        self._tanh = isinstance(net.layers[1], nn.Tanh)
        self._inputs: list[Tensor] = []
        self._gate: Tensor | None = None
        self._first = torch.empty(0)

    def forward(self, features: Tensor) -> Tensor:
        """Outputs [n, n_out]; see :meth:`GatedMLP.forward`. Nothing may change until :meth:`backward`."""
        net, hidden = self._net, features
        self._inputs = [features]
        for number, layer in enumerate(self._linear[:-1]):
            hidden = torch.addmm(layer.bias, hidden, layer.weight.t())
            hidden = hidden.tanh_() if self._tanh else hidden.relu_()
            if number == 0 and net.gate is not None:
                self._first = hidden
                self._gate = torch.addmm(net.gate.bias, features[:, net.n_features :], net.gate.weight.t())
                hidden = hidden * self._gate
            self._inputs.append(hidden)
        last = self._linear[-1]
        return torch.addmm(last.bias, hidden, last.weight.t())

    def backward(self, gradient: Tensor, rows: slice = slice(None)) -> None:
        """Overwrite the parameters' gradients, given that with respect to the outputs of some rows [n, n_out]."""
        for number in range(len(self._linear) - 1, -1, -1):
            layer, given = self._linear[number], self._inputs[number][rows]
            _into(layer, gradient, given)
            if number == 0:
                return
            gradient = torch.mm(gradient, layer.weight)
            after = given
            if number == 1 and self._gate is not None:
                gate = self._net.gate
                assert gate is not None
                after = self._first[rows]
                _into(gate, gradient * after, self._inputs[0][rows, self._net.n_features :])
                gradient = gradient * self._gate[rows]
            if self._tanh:
                gradient = torch.ops.aten.tanh_backward(gradient, after)
            else:
                gradient = torch.ops.aten.threshold_backward(gradient, after, 0)


def _into(layer: nn.Linear, gradient: Tensor, given: Tensor) -> None:
    """Gradients of a layer's weight and bias from that of its outputs and from its inputs."""
    weight, bias = layer.weight.grad, layer.bias.grad
    assert weight is not None
    assert bias is not None
    torch.mm(gradient.t(), given, out=weight)
    torch.sum(gradient, dim=0, out=bias)


class TwinPass:
    """The forward pass of both critics, and the backward passes to their parameters or to their inputs.

    Args:
        net: its parameters must have gradients already, which :meth:`backward` overwrites.
    """

    def __init__(self, net: TwinCritic) -> None:
        self._weights, self._biases = list(net.weights), list(net.biases)
        self._inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Values [2, n, n_out] for inputs [n, n_in]. Nothing may change until the backward pass."""
        hidden = x.expand(2, *x.shape)
        self._inputs = [hidden]
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
            self._inputs.append(hidden)
        return torch.baddbmm(self._biases[-1], hidden, self._weights[-1])

    def backward(self, gradient: Tensor, rows: slice = slice(None)) -> None:
        """Overwrite the parameters' gradients, given that with respect to the values of some rows [2, n, n_out]."""
        for number in range(len(self._weights) - 1, -1, -1):
            weight, bias, given = self._weights[number], self._biases[number], self._inputs[number][:, rows]
            assert weight.grad is not None
            assert bias.grad is not None
            torch.bmm(given.transpose(1, 2), gradient, out=weight.grad)
            torch.sum(gradient, dim=1, keepdim=True, out=bias.grad)
            if number:
                gradient = self._through(number, gradient, rows)

    def to_inputs(self, gradient: Tensor, rows: slice = slice(None)) -> Tensor:
        """Gradient with respect to the inputs of some rows [n, n_in], given that of their values [2, n, n_out]."""
        for number in range(len(self._weights) - 1, 0, -1):
            gradient = self._through(number, gradient, rows)
        return torch.bmm(gradient, self._weights[0].transpose(1, 2)).sum(dim=0)

    def _through(self, number: int, gradient: Tensor, rows: slice) -> Tensor:
        gradient = torch.bmm(gradient, self._weights[number].transpose(1, 2))
        return torch.ops.aten.threshold_backward(gradient, self._inputs[number][:, rows], 0)  # type: ignore[no-any-return]
