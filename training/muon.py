"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/): steps of equal size in every
direction of a weight matrix.

Matrices and convolutions take Muon's steps; biases, norms and what `by_adam` names take AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.precision import working_type

MOMENTUM = 0.95
# The coefficients and the number of rounds of the post's Newton-Schulz iteration.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# A step's root mean square is then what AdamW's usually is (Liu et al. 2025, arXiv 2502.16982),
# so both share one learning rate.
MATCHED_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for the matrices among the parameters, which may have more than two dimensions."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                direction = parameter.grad.lerp(momentum, MOMENTUM).flatten(1)
                step = orthogonalised(direction)
                size = MATCHED_SIZE * max(direction.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view(parameter.shape), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are about 1."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(working_type(matrix.device.type))
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


class Optimizers:
    """Muon and AdamW side by side."""

    def __init__(
        self, network: nn.Module, rate: float, weight_decay: float, by_adam: tuple[str, ...] = ()
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            by_muon = parameter.ndim > 1 and not name.startswith(by_adam)
            (matrices if by_muon else others).append(parameter)
        self.parts: list[Any] = [
            Muon(matrices, rate, weight_decay),
            torch.optim.AdamW(others, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]

    def set_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state for `load_state_dict`."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from a saved state."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
