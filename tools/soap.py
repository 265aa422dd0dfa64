"""Time a step of our SOAP beside pytorch-optimizer's: `python tools/soap.py`.

Both step the same network's parameters with the same gradients, in turns, so that what slows the machine slows both.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from pytorch_optimizer.optimizer.soap import SOAP as Reference

from inrkit.device import choose_device, choose_precision
from inrkit.networks import set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.training.optimizers.factories import Soap, SoapOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="features of every hidden layer")
    parser.add_argument("--steps", type=int, default=100, help="of either")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = Siren(SirenOptions(hidden_features=arguments.width), 2, 3)
    precision = choose_precision(arguments.precision, choose_device("cpu"))
    set_precision(network, precision)
    other = copy.deepcopy(network)
    optimizers = {"ours": Soap.make(SoapOptions(), network), "pytorch-optimizer": Reference(other.parameters())}
    seconds = dict.fromkeys(optimizers, 0.0)
    for step in range(-10, arguments.steps):
        for one, another in zip(network.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            another.grad = one.grad.clone()
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            if step >= 0:
                seconds[name] += time.perf_counter() - start
    for name, spent in seconds.items():
        print(f"{name:18s} {1000 * spent / arguments.steps:6.2f} ms a step")
    print(f"ratio {seconds['pytorch-optimizer'] / seconds['ours']:.2f}, {precision} hidden products")


if __name__ == "__main__":
    main()
