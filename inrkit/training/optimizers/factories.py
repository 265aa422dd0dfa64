"""The optimizers' plug-ins and options."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from inrkit.networks.layers import hidden_layers, precision_of, trained
from inrkit.networks.tiles import Tiles
from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry
from inrkit.training.optimizers.joined import joined
from inrkit.training.optimizers.kernels import fused
from inrkit.training.optimizers.rows import RowAdam, RowSOAP
from inrkit.training.optimizers.soap import SOAP

OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer", "inrkit.optimizers")


@OPTIMIZERS.base
class OptimizerFactory(metaclass=PluginType):
    """Makes a torch optimizer for the parameters of a network that are trained.

    The optimizer's parameter groups may have different learning rates. Its state consists of plain containers, numbers
    and tensors. A step takes a closure that zeroes the gradients, backpropagates and returns the loss.
    """

    Options: ClassVar[type]
    reevaluates: ClassVar[bool] = False
    """Whether a step evaluates the loss several times and compares it across steps, so that all steps must train on
    the same coordinates."""
    rates: ClassVar[tuple[str, ...]] = ("lr",)
    """The options that are its learning rates."""

    steps_rows: ClassVar[bool] = False
    """Whether it makes a `RowOptimizer` for a network with tiles, whose networks then step by themselves."""

    @classmethod
    @abstractmethod
    def make(cls, options: Any, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer.

        Args:
            options: an instance of the subclass's `Options`.
            network: whose parameters are trained, but for those that do not require a gradient.
        """


@dataclass
class AdamOptions:
    lr: float = option(1e-4, above=0)
    """Learning rate before the schedule's factor."""
    beta1: float = option(0.9, at_least=0, below=1, own=True)
    """Decay of the running mean of gradients."""
    beta2: float = option(0.999, at_least=0, below=1, own=True)
    """Decay of the running mean of squared gradients."""
    weight_decay: float = option(0.0, at_least=0)
    """Weight decay; coupled to the gradient in Adam, decoupled in AdamW."""


@OPTIMIZERS.register("adam")
class Adam(OptimizerFactory):
    """torch.optim.Adam; where the network has tiles, each of their networks counts its own steps."""

    Options = AdamOptions
    steps_rows = True
    optimizer: ClassVar[type[torch.optim.Adam]] = torch.optim.Adam

    @classmethod
    def make(cls, options: AdamOptions, network: nn.Module) -> torch.optim.Optimizer:
        if isinstance(network, Tiles):
            return RowAdam(
                trained(network),
                lr=options.lr,
                betas=(options.beta1, options.beta2),
                weight_decay=options.weight_decay,
                decoupled=issubclass(cls.optimizer, torch.optim.AdamW),
            )
        parameters = trained(network)
        return cls.optimizer(
            parameters,
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=fused(parameters),
        )


@OPTIMIZERS.register("adamw")
class AdamW(Adam):
    """torch.optim.AdamW."""

    optimizer = torch.optim.AdamW


@dataclass
class SoapOptions:
    lr: float = option(1e-3, above=0)
    """Learning rate before the schedule's factor; smaller batches need a smaller one."""
    beta1: float = option(0.95, at_least=0, below=1, own=True)
    """Decay of the running mean of gradients."""
    beta2: float = option(0.95, at_least=0, below=1, own=True)
    """Decay of the running mean of squared gradients."""
    weight_decay: float = option(0.0, at_least=0)
    """Decoupled weight decay."""
    precondition_every: int = option(10, at_least=1)
    """Steps between two updates of the preconditioner's eigenbasis."""
    precondition_up_to: int = option(1024, at_least=1)
    """Longest side of a matrix that is preconditioned; an eigenbasis of n vectors takes n³ operations. Longer sides,
    such as the rows of a hash table, keep Adam's own basis."""


@OPTIMIZERS.register("soap")
class Soap(OptimizerFactory):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025).

    The first step only sets up the preconditioner and does not change the network. The weights of `HiddenLinear` layers
    are rotated into their eigenbasis and back in bfloat16 where the layers multiply in it. SOAP is not defined for
    complex parameters; AdamW trains them. Where the network has tiles, each of their networks counts its own steps.
    """

    Options = SoapOptions
    steps_rows = True

    @classmethod
    def make(cls, options: SoapOptions, network: nn.Module) -> torch.optim.Optimizer:
        given: dict[str, Any] = {
            "lr": options.lr,
            "betas": (options.beta1, options.beta2),
            "weight_decay": options.weight_decay,
        }
        turned: dict[str, Any] = {
            "precondition_every": options.precondition_every,
            "precondition_up_to": options.precondition_up_to,
        }
        if isinstance(network, Tiles):
            return RowSOAP(trained(network), network.shapes, **given, **turned)
        hidden = {id(layer.weight) for layer in hidden_layers(network)}
        # Gradients are too small for float16.
        precision = "bfloat16" if precision_of(network).startswith("bfloat16") else "float32"
        groups: dict[str, list[nn.Parameter]] = {}
        complex_parameters = []
        for parameter in trained(network):
            if parameter.is_complex():
                complex_parameters.append(parameter)
            else:
                groups.setdefault(precision if id(parameter) in hidden else "float32", []).append(parameter)
        return joined(
            (
                [{"params": parameters, "precision": precision} for precision, parameters in groups.items()],
                lambda part: SOAP(part, **given, **turned),
            ),
            (complex_parameters, lambda part: torch.optim.AdamW(part, **given)),
        )


@dataclass
class MuonOptions:
    lr: float = option(1e-3, above=0)
    """Learning rate of hidden matrices before the schedule's factor, on Adam's scale: an update's root mean square is
    about 0.2 times the rate, as with Adam."""
    momentum: float = option(0.95, at_least=0, below=1)
    """Decay of the running mean of hidden matrices' gradients."""
    adam_lr: float = option(1e-3, above=0)
    """Learning rate of all other parameters before the schedule's factor."""
    beta1: float = option(0.9, at_least=0, below=1, own=True)
    """Decay of the running mean of the other parameters' gradients."""
    beta2: float = option(0.999, at_least=0, below=1, own=True)
    """Decay of the running mean of their squared gradients."""
    weight_decay: float = option(0.0, at_least=0)
    """Decoupled weight decay, of all parameters."""


@OPTIMIZERS.register("muon")
class Muon(OptimizerFactory):
    """Muon for hidden matrices, AdamW for the rest; both are torch's.

    Muon orthogonalises the momentum of a matrix (Jordan et al., 2024) and scales its step as in Liu et al. (arXiv
    2502.16982). Hidden matrices are the weights of `HiddenLinear` layers. The rest are first and last layers, biases,
    tables and complex parameters.
    """

    Options = MuonOptions
    rates = ("lr", "adam_lr")

    @classmethod
    def make(cls, options: MuonOptions, network: nn.Module) -> torch.optim.Optimizer:
        hidden = {id(layer.weight) for layer in hidden_layers(network) if not layer.weight.is_complex()}
        parameters = trained(network)
        return joined(
            (
                [parameter for parameter in parameters if id(parameter) in hidden],
                lambda part: torch.optim.Muon(
                    part,
                    lr=options.lr,
                    momentum=options.momentum,
                    weight_decay=options.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                ),
            ),
            (
                [parameter for parameter in parameters if id(parameter) not in hidden],
                lambda part: torch.optim.AdamW(
                    part,
                    lr=options.adam_lr,
                    betas=(options.beta1, options.beta2),
                    weight_decay=options.weight_decay,
                    fused=fused(part),
                ),
            ),
        )


@dataclass
class LbfgsOptions:
    step_length: float = option(1.0, above=0)
    """First step length that a line search tries, before the schedule's factor; 1 is Newton's. It is not called `lr`,
    so that a preset's learning rate is not taken for it."""
    iterations: int = option(4, at_least=1)
    """L-BFGS iterations a training step; the step evaluates the loss once more at its start."""
    history: int = option(20, at_least=1)
    """Past iterations that the curvature is estimated from; each takes two numbers a parameter."""


@OPTIMIZERS.register("lbfgs")
class Lbfgs(OptimizerFactory):
    """torch.optim.LBFGS with strong-Wolfe line search, for selections that do not change from step to step.

    torch's tolerances are off, because a well fitted network would stop training; only the number of steps ends it.
    """

    Options = LbfgsOptions
    reevaluates = True
    rates = ("step_length",)

    @classmethod
    def make(cls, options: LbfgsOptions, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            trained(network),
            lr=options.step_length,
            max_iter=options.iterations,
            max_eval=options.iterations * _EVALUATIONS,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=options.history,
            line_search_fn="strong_wolfe",
        )


_EVALUATIONS = 25
"""Evaluations that a line search may take on average; torch's default of 1.25 would end searches too early."""
