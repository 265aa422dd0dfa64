"""SOAP that steps parameters of equal shape together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrkit.device import has_float64, returned, wide
from inrkit.training.optimizers.base import Optimizer, evaluated

SHIFT, FLOOR = 2**10, 2**16
"""What is added to covariances before a turn, and the floor of root mean squares, in units of the dtype's rounding.
Both are far above rounding and far below the values that matter in training: in float32 1.2e-4 of the trace, and 0.8 %
of a matrix's root mean square."""


class SOAP(Optimizer):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025, algorithm 3).

    Adam runs in the eigenbasis of the gradient's covariance along each axis, averaged over steps. Every
    `precondition_every` steps, a round of power iteration with a QR decomposition updates (turns) the eigenvectors. The
    first step sets them up and does not change the parameters.

    Parameters of equal shape in a group are stacked and stepped together, because products of single small matrices do
    not fill a processor. Momentum is kept in the eigenbasis, which saves two products a step, and turned with it. A
    parameter without a gradient counts as one whose gradient is zero.

    Steps hardly depend on rounding, so parameters step alike stacked or alone and on any processor. Bases of null
    spaces are fixed (`_eigenvectors`) and stay (`adopt`), and a value that is zero but for rounding takes no full step
    (`_divisors`). Products in bfloat16 round at about the floor there, so with them steps may differ by more.

    Args:
        params: real parameters, or groups of them.
        lr: learning rate.
        betas: decays of the running means of gradients, and of squared gradients and covariances.
        eps: added to the root of the mean squared gradient.
        weight_decay: decoupled.
        precondition_every: steps between two turns of the eigenbasis.
        precondition_up_to: longest axis with an eigenbasis; vectors and longer axes keep their own basis.
        precision: of the products with the eigenbasis, "float32" or "bfloat16"; its turns are always float32.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        precondition_every: int = 10,
        precondition_up_to: int = 1024,
        precision: str = "float32",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_every": precondition_every,
            "precondition_up_to": precondition_up_to,
            "precision": precision,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step, after an evaluation of `closure` if it is given; returns the closure's result."""
        loss = evaluated(closure)
        stepped = [
            self._step(parameters, group) for group in self.param_groups for parameters in _alike(group["params"])
        ]
        adopt([state for state in stepped if state is not None])
        return loss

    @classmethod
    def of_all(cls, several: Sequence[SOAP]) -> SOAP:
        """One that steps the parameters of several, and begins with their states.

        Args:
            several: of parameters of the same shapes with the same options, after equally many steps.
        """
        first = several[0]
        groups = [
            {**group, "params": [each for one in several for each in one.param_groups[number]["params"]]}
            for number, group in enumerate(first.param_groups)
        ]
        joint = cls(groups)
        for number, group in enumerate(joint.param_groups):
            own = [_alike(one.param_groups[number]["params"]) for one in several]
            for shape, parameters in enumerate(_alike(group["params"])):
                states = [one.state.get(alike[shape][0]) for one, alike in zip(several, own, strict=True)]
                if all(states):
                    joint.state[parameters[0]] = _joined(states)  # type: ignore[arg-type]
        return joint

    def give_back(self, index: int, own: SOAP) -> None:
        """Give one of those that `of_all` was made of, by its place among them, its part of the state."""
        for joint, group in zip(self.param_groups, own.param_groups, strict=True):
            for ours, theirs in zip(_alike(joint["params"]), _alike(group["params"]), strict=True):
                if ours[0] in self.state:
                    span = slice(index * len(theirs), (index + 1) * len(theirs))
                    own.state[theirs[0]] = _part(self.state[ours[0]], span)

    def _step(self, parameters: Sequence[nn.Parameter], group: dict[str, Any]) -> dict[str, Any] | None:
        """A step of B parameters of equal shape; the state of all is stored with the first.

        Returns:
            The state, if its bases are to be turned.
        """
        gradients = torch.stack([torch.zeros_like(each) if each.grad is None else each.grad for each in parameters])
        state = self.state[parameters[0]]
        if not state:
            state.update(step=0, **first_state(gradients, group))
            return None
        state["step"] += 1
        beta1, beta2 = group["betas"]
        change = refined(state, gradients, group)
        rate = group["lr"] * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        for parameter, each in zip(parameters, change, strict=True):
            parameter.add_(each, alpha=-rate)
            if group["weight_decay"] > 0:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
        return state if state["step"] % group["precondition_every"] == 0 else None


def _alike(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters by shape, in their order."""
    shapes: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    return list(shapes.values())


def _joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of all parameters that several states are of."""
    joined: dict[str, Any] = {"step": states[0]["step"]}
    for name in ("momentum", "squares"):
        joined[name] = _laid_out_alike([state[name] for state in states])
    for name in ("covariances", "bases"):
        axes = zip(*(state[name] for state in states), strict=True)
        joined[name] = [None if each[0] is None else _laid_out_alike(each) for each in axes]
    return joined


def _laid_out_alike(parts: Sequence[Tensor]) -> Tensor:
    """(B, …) parts one after another, in memory as the first is: the rounding of a product depends on that, and bases
    lie column by column once they have turned."""
    first = parts[0]
    order = sorted(range(1, first.ndim), key=first.stride, reverse=True)
    places = [0, *(1 + order.index(axis) for axis in range(1, first.ndim))]
    return torch.cat([part.permute(0, *order) for part in parts]).permute(places)


def _part(state: dict[str, Any], span: slice) -> dict[str, Any]:
    """The state of some of its parameters, in memory of its own."""
    rows = {name: kept for name, kept in state.items() if name != "step"}
    return {"step": state["step"], **mapped(lambda kept: kept[span].clone(), rows)}


def mapped(function: Callable[[Tensor], Tensor], state: dict[str, Any]) -> dict[str, Any]:
    """A state as of `first_state`, whose tensors are `function` of another's."""
    return {name: _each(kept, function) if isinstance(kept, list) else function(kept) for name, kept in state.items()}


def refined(state: dict[str, Any], gradients: Tensor, group: dict[str, Any]) -> Tensor:
    """(B, …) changes of B parameters of equal shape for a rate of −1, before Adam's bias corrections.

    Args:
        state: from `first_state`; it learns the gradients.
        gradients: (B, …).
        group: the optimizer's options.
    """
    beta1, beta2 = group["betas"]
    dtype = getattr(torch, group["precision"])
    factors = gradients.to(dtype)
    bases = _each(state["bases"], lambda basis: basis.to(dtype))
    turned = _rotated(factors, bases).to(gradients.dtype)
    momentum = state["momentum"].lerp_(turned, 1 - beta1)
    squares = state["squares"].lerp_(turned.square(), 1 - beta2)
    change = momentum / _divisors(squares, bases).add_(group["eps"])
    for axis, mean in enumerate(state["covariances"], start=1):
        if mean is not None:
            mean.lerp_(_covariance(factors, axis).to(mean.dtype), 1 - beta2)
    return _rotated(change.to(dtype), _each(bases, _inverse)).to(gradients.dtype)


def first_state(gradients: Tensor, group: dict[str, Any]) -> dict[str, Any]:
    """The state of B parameters of equal shape after their first (B, …) gradients.

    Covariances and bases are (B, n, n), one for each axis but the first; None for an axis that keeps its own basis.
    """
    preconditioned = [gradients.ndim > 2 and length <= group["precondition_up_to"] for length in gradients.shape[1:]]
    # In float32, rounding would fill the null space of a gradient with fewer columns than rows.
    precise = [
        _covariance(wide(gradients), axis) if wanted else None for axis, wanted in enumerate(preconditioned, start=1)
    ]
    dtype = gradients.dtype
    return {
        "momentum": torch.zeros_like(gradients),
        "squares": torch.zeros_like(gradients),
        "covariances": _each(precise, lambda covariance: returned(covariance * (1 - group["betas"][1]), gradients)),
        "bases": _each(precise, lambda covariance: _eigenvectors(covariance, dtype).to(gradients.device)),
    }


def _each(matrices: Sequence[Tensor | None], function: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    """`function` of each matrix; None stays None."""
    return [None if matrix is None else function(matrix) for matrix in matrices]


def _inverse(basis: Tensor) -> Tensor:
    """The inverses of (B, n, n) orthogonal bases."""
    return basis.mT


def _covariance(gradients: Tensor, axis: int) -> Tensor:
    """(B, n, n) products of (B, …) gradients with themselves along all axes but the first and `axis`."""
    rows = gradients.movedim(axis, 1).flatten(2)
    return rows @ rows.mT


def _rotated(values: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """(B, …) values in the bases given by the columns of (B, n, n) matrices, one for each axis but the first."""
    for axis, basis in enumerate(bases, start=1):
        if basis is None:
            continue
        if values.ndim == 3:  # a matrix needs nothing moved
            values = values @ basis if axis == 2 else basis.mT @ values
        else:
            moved = values.movedim(axis, -1)
            values = (moved.flatten(1, -2) @ basis).view(moved.shape).movedim(-1, axis)
    return values


def _trace(covariances: Tensor) -> Tensor:
    """(B, 1, 1) sums of the eigenvalues of (B, n, n) covariances."""
    return covariances.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]


def _eigenvectors(covariances: Tensor, dtype: torch.dtype) -> Tensor:
    """Eigenvectors of (B, n, n) float64 covariances as columns in `dtype`, the largest eigenvalue's first.

    Eigenvectors of equal eigenvalues are not unique, above all in the null space of a covariance whose rank is below
    its size. Small decreasing numbers, added to the diagonal, select those nearest the parameter's own axes.
    Covariances that are not finite get these axes; the loss then says that training has diverged.
    """
    length, trace = covariances.shape[-1], _trace(covariances)
    scaled = (covariances / torch.where(trace > 0, trace / length, 1.0)).nan_to_num(0.0, 0.0, 0.0)
    falling = torch.linspace(1, 0, length, dtype=scaled.dtype, device=scaled.device).diag()
    vectors = torch.linalg.eigh(scaled + torch.finfo(dtype).eps ** 0.5 * falling).eigenvectors.flip(-1)
    largest = vectors.take_along_dim(vectors.abs().argmax(dim=1, keepdim=True), dim=1)
    return (vectors * largest.sign()).to(dtype)


def _decomposed(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The QR decomposition of (B, n, n) matrices; devices without float64 have none of their own."""
    if has_float64(matrices.device):
        return tuple(torch.linalg.qr(matrices))
    vectors, factors = torch.linalg.qr(matrices.cpu())
    return vectors.to(matrices.device), factors.to(matrices.device)


def _divisors(squares: Tensor, bases: Sequence[Tensor | None]) -> Tensor:
    """Roots of (B, …) mean squares in the eigenbases, above a floor.

    Products with a basis leave rounding errors where zeros should be, and Adam alone would take full steps along them.
    A gradient that does not change, for instance, is diagonal in its own eigenbases; every other entry is rounding.
    """
    roots = squares.sqrt()
    mixed = [axis for axis, basis in enumerate(bases, start=1) if basis is not None]
    if mixed:
        size = torch.linalg.vector_norm(roots, dim=mixed, keepdim=True)
        count = math.prod(roots.shape[axis] for axis in mixed)
        roots.add_(size, alpha=FLOOR * torch.finfo(roots.dtype).eps / math.sqrt(count))
    return roots


def adopt(states: Sequence[dict[str, Any]]) -> None:
    """Turn the bases, and the values kept in them, towards the covariances' eigenvectors by a round of power iteration.

    A small multiple of the identity is added to the covariances, which does not change their eigenvectors. Without it
    the product with a vector of the null space would be only rounding; with it that vector stays.

    All matrices of a size are decomposed together: one by one, small ones would leave a GPU idle.
    """
    unturned = [_rotated(state["momentum"], _each(state["bases"], _inverse)) for state in states]
    sizes: dict[int, list[tuple[list[Tensor | None], int, Tensor]]] = {}
    for state in states:
        for axis, (covariance, basis) in enumerate(zip(state["covariances"], state["bases"], strict=True), start=1):
            if basis is None:
                continue
            shift = SHIFT * torch.finfo(covariance.dtype).eps * _trace(covariance)
            powers = (covariance @ basis).addcmul_(basis, shift)
            order = (basis * powers).sum(dim=1).argsort(dim=1, descending=True)
            ordered = powers.take_along_dim(order[:, None], dim=2)
            sizes.setdefault(ordered.shape[-1], []).append((state["bases"], axis - 1, ordered))
            across = [1] * (state["squares"].ndim - 1)
            across[axis - 1] = -1
            state["squares"] = state["squares"].take_along_dim(order.view(len(order), *across), dim=axis)
    for alike in sizes.values():
        vectors, factor = _decomposed(torch.cat([ordered for *_, ordered in alike]))
        # The decomposition's signs depend on rounding; a positive diagonal keeps the sign of every vector.
        vectors = vectors * torch.where(factor.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)[:, None]
        for (bases, place, _), own in zip(alike, vectors.split([len(each[2]) for each in alike]), strict=True):
            bases[place] = own.clone()  # a view would be saved together with all others
    for state, values in zip(states, unturned, strict=True):
        state["momentum"] = _rotated(values, state["bases"])
