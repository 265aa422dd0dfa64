"""Steps on a device whose memory the processor cannot read: no number is read back, and no tensor lies elsewhere."""

import collections
import contextlib
import io
import pickle
import types

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inrkit import NETWORKS, OPTIMIZERS, SELECTORS, TRANSFORMS, CoordinateDataset
from inrkit.config import resolve
from inrkit.plugins.options import field_names
from inrkit.runs.build import as_signal, build
from inrkit.training.backends.single import Single
from inrkit.training.backends.stacked import Stacked
from inrkit.training.backends.tiled import Tiled
from inrkit.training.loop import Trainer

aten = torch.ops.aten
CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
DATA_DEPENDENT = (
    aten._local_scalar_dense,
    aten.nonzero,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.masked_select,
    aten.repeat_interleave,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
)
"""Operations whose results the processor has to wait for: numbers, and tensors whose sizes follow from values."""
SMALL = {"hidden_features": 8, "hidden_layers": 1, "features": 4, "octaves": 3, "table_bits": 8, "levels": 3}


@pytest.fixture(autouse=True)
def device_module(monkeypatch):
    """What torch keeps of a device's own generator; and its clock, which says nothing here."""
    module = types.SimpleNamespace(
        get_rng_state=lambda device: torch.zeros(16, dtype=torch.uint8),
        set_rng_state=lambda state, device: None,
        synchronize=lambda device: None,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)


class DeviceGenerator(torch.Generator):
    """A generator that says it belongs to the device; nothing is ever drawn from it."""

    @property
    def device(self):
        return ELSEWHERE


class Device(TorchDispatchMode):
    """Tensors on torch's meta device stand for those on a GPU: they have shapes and no values.

    An operation on tensors of both devices is an error, but for numbers. If `strict`, so are those that the processor
    waits for, and copies from one memory to the other, for which it waits too. Counts the operations on the device.
    """

    def __init__(self, strict):
        super().__init__()
        self.strict = strict
        self.counts = collections.Counter()

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [tensor for tensor in tensors if tensor.device == CPU and tensor.ndim]
        there = [tensor for tensor in tensors if tensor.device == ELSEWHERE]
        packet = function.overloadpacket
        if packet is aten._index_put_impl_ or packet is aten.index_put_:
            mask = [index for index in tree_leaves(args[1]) if isinstance(index, torch.Tensor)]
        elif packet is aten.index:
            mask = tree_leaves(args[1])
        else:
            mask = []
        to = kwargs.get("device")
        crossing = bool(here and there) or (to is not None and torch.device(to) == CPU and bool(there))
        brought = packet is aten._to_copy and to is not None and torch.device(to) == ELSEWHERE and bool(here)
        brought = brought and not kwargs.get("non_blocking")
        copied = packet is aten.copy_ and bool(here or tensors[0].device != tensors[1].device)
        if (crossing or copied or brought) and (self.strict or not (copied or brought)):
            raise AssertionError(f"{function} takes tensors from one memory to the other")
        if self.strict and there:
            masks = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in mask)
            if packet in DATA_DEPENDENT or (masks and packet is aten.index):
                raise AssertionError(f"the processor waits for {function}")
        if there or (to is not None and torch.device(to) == ELSEWHERE):
            self.counts[str(packet)] += 1
            if "generator" in kwargs:
                kwargs["generator"] = None  # there is none of the meta device
        return function(*args, **kwargs)


class Constants(TorchFunctionMode):
    """Finds copies of constants to the device, which torch does not make on the meta device."""

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == ELSEWHERE
        if made or (function is torch.unravel_index and args[0].device == ELSEWHERE):
            raise AssertionError(f"{function.__name__} copies constants to the device")
        return function(*args, **kwargs)


@contextlib.contextmanager
def strictly():
    """A device from which nothing may be read."""
    with Device(strict=True) as device, Constants():
        yield device


def moved(members, backend):
    """Copies of members and their backend, on the device. The states of generators and the step counts of torch's
    optimizers stay with the processor, as they do with a GPU."""
    kept, numbers = [], {}
    staying = {id(state) for member in members for state in member.random.values()}
    for member in members:
        for optimizer in getattr(member.optimizer, "parts", [member.optimizer]):
            staying |= {id(state["step"]) for state in optimizer.state.values() if "step" in state}

    class Packer(pickle.Pickler):
        def persistent_id(self, part):
            if not isinstance(part, torch.Tensor | torch.Generator | torch.device):
                return None
            if id(part) not in numbers:
                numbers[id(part)] = len(kept)
                kept.append(part)
            return numbers[id(part)]

    buffer = io.BytesIO()
    Packer(buffer).dump((members, backend))
    buffer.seek(0)
    settled = [part if id(part) in staying else _settled(part) for part in kept]

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, number):
            return settled[number]

    return Unpacker(buffer).load()


def _settled(part):
    if isinstance(part, torch.device):
        return ELSEWHERE
    if isinstance(part, torch.Generator):
        return DeviceGenerator()
    other = part.detach().to(ELSEWHERE)
    if isinstance(part, torch.nn.Parameter):
        return torch.nn.Parameter(other, part.requires_grad)
    return other.requires_grad_(part.requires_grad)


def picture(known=False, weighted=False):
    y, x = np.mgrid[0:24, 0:20]
    values = np.stack([x * 12, y * 10, (x * y) % 256], axis=-1).astype(np.uint8)
    return CoordinateDataset(
        values, weights=1.0 + y / 24 if weighted else None, known=(x + y) % 7 > 0 if known else None
    )


def points():
    places = np.random.default_rng(0).uniform(-1, 1, (400, 3)).astype(np.float32)
    return CoordinateDataset(np.linalg.norm(places, axis=1, keepdims=True), points=places)


def member_of(dataset, seed=0, network="siren", selector="evos", **layer):
    """A member as a config describes it, on the CPU."""
    if isinstance(network, str):
        declared = field_names(NETWORKS.get(network).Options)
        network = {"name": network, **{key: value for key, value in SMALL.items() if key in declared}}
    layer = {
        "modality": "image" if dataset.grid_shape is not None else "shape",
        "data": {"path": "none"},
        "network": network,
        "selector": selector,
        "objective": "mse",
        "optimizer": "adam",
        "train": {"steps": 1000, "chunk": 256},
        "seed": seed,
        **layer,
    }
    config = resolve([layer])
    if hasattr(config.selector.options, "least"):
        config.selector.options.least = 1
    return build(config, as_signal(config, dataset), CPU, "float32")


def steps_elsewhere(members, backend, real=2, loose=1, strict=2):
    """Some steps on the CPU, then some on the device, the last of them strict.

    Returns:
        The operations of each strict step.
    """
    trainer = Trainer(members, backend())
    for _ in range(real):
        trainer.step(members)
    if isinstance(trainer.backend, Stacked):
        trainer.backend.release()  # a copy of the members would lose which memory they share
    members, ready = moved(members, trainer.backend)
    trainer = Trainer(members, ready)
    counts = []
    for number in range(loose + strict):
        with strictly() if number >= loose else Device(strict=False) as device:
            trainer.step(members)
        for member in members:
            if member.failure is not None:
                raise member.failure
        counts.append(device.counts)
    return counts[loose:]


CASES = {
    **{name: {"selector": name} for name in SELECTORS.names()},
    "uniform, random": {"selector": {"name": "uniform", "draw": "random", "ratio": 0.1}},
    "uniform, sparse": {"selector": {"name": "uniform", "draw": "quasi-random", "ratio": 0.1}},
    "evos, random": {"selector": {"name": "evos", "draw": "random", "ratio": 0.2, "ratio_schedule": "linear"}},
    "evos, key steps": {"selector": {"name": "evos", "interval_start": 1, "interval": "fixed"}},
    "expansive, weights": {"selector": {"name": "expansive", "expand": True, "ratio_schedule": "reverse-cosine"}},
    "linking": {"objective": "cross-frequency", "selector": {"name": "evos", "draw": "random"}},
}


@pytest.mark.parametrize("case", CASES)
def test_steps_wait_for_nothing(case):
    steps_elsewhere([member_of(picture(), **CASES[case])], Single)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in ("evos", "full") else pytest.mark.slow)
        for case in [*SELECTORS.names(), "linking"]
    ],
)
def test_stacked_steps_wait_for_nothing(case):
    steps_elsewhere([member_of(picture(), seed, **CASES[case]) for seed in range(2)], Stacked)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_steps_on_a_part_of_a_lattice_and_with_weights_wait_for_nothing(known, weighted):
    steps_elsewhere([member_of(picture(known, weighted), operator="laplacian")], Single)


TILED = [name for name in SELECTORS.names() if SELECTORS.get(name).of_tiles is not None]


@pytest.mark.parametrize("selector", TILED)
@pytest.mark.parametrize("dataset", [picture(), picture(known=True, weighted=True), points()])
def test_steps_of_tiles_wait_for_nothing(selector, dataset):
    network = {"name": "tiles", "parameters": 8000, "between": 1.0}
    ratio = {"ratio": 0.4} if "ratio" in field_names(SELECTORS.get(selector).Options) else {}
    member = member_of(dataset, network=network, selector={"name": selector, **ratio})
    counts = steps_elsewhere([member], Tiled)
    assert counts[-1].total() > 50


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS.names() if not OPTIMIZERS.get(name).reevaluates])
def test_steps_of_every_optimizer_wait_for_nothing(optimizer):
    steps_elsewhere([member_of(picture(), optimizer=optimizer)], Single)


@pytest.mark.parametrize("network", ["siren", "tiles"])
def test_a_step_has_as_many_operations_however_large_the_signal_is(network):
    counts = []
    for side in (24, 60):
        values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        given = {"name": "tiles", "between": 0.0} if network == "tiles" else network
        member = member_of(CoordinateDataset(values), network=given, train={"steps": 1000, "chunk": 10_000})
        counts.append(steps_elsewhere([member], Single if network == "siren" else Tiled)[-1].total())
    assert 50 < counts[1] <= 1.05 * counts[0]


def test_turns_of_soap_wait_for_nothing():
    steps_elsewhere([member_of(picture(), optimizer={"name": "soap", "precondition_every": 1})], Single)


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name in NETWORKS.names() if not NETWORKS.get(name).tiled])
def test_steps_of_every_network_wait_for_nothing(network):
    steps_elsewhere([member_of(picture(), network=network)], Single, real=1, strict=1)


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS.names())
def test_steps_with_every_transform_wait_for_nothing(transform):
    steps_elsewhere([member_of(picture(), transform=transform)], Single, real=1, strict=1)


@pytest.mark.parametrize(
    "wait",
    [
        lambda there: float(there.sum()),
        lambda there: bool((there > 0).all()),
        lambda there: there.tolist(),
        lambda there: there.nonzero(),
        lambda there: there[there > 0],
        lambda there: there.unique(),
        lambda there: there.cpu(),
        lambda there: torch.tensor([1.0, 2.0], device=there.device),
        lambda there: there + torch.ones(3),
        lambda there: there[torch.arange(2)],
    ],
)
def test_what_waits_is_found(wait):
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), strictly():
        wait(torch.ones(3, device=ELSEWHERE))
