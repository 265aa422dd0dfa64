"""The promises of a plug-in, as checks that its author can run.

Each check raises an AssertionError that says which promise is broken. A check needs only the plug-in's class:

    from inrkit.contract import check_network
    check_network(MyNetwork)
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.metrics import METRICS, FieldMetric, Measure, Metric
from inrkit.networks import Network, set_precision
from inrkit.plugins.options import docstrings, field_names
from inrkit.plugins.registry import Registry
from inrkit.runs.field import Field
from inrkit.selectors import Residuals, Selection, Selector
from inrkit.selectors.progress import Progress
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.embeddings import EMBEDDINGS, Identity, IdentityOptions
from inrkit.signals.modality import Modality
from inrkit.signals.operators import OPERATORS, FitnessOperator, LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import Identity as IdentityTransform


def check_modality(plugin: type[Modality]) -> None:
    """Check that a modality reads its own sample, writes it, and reads the same values back."""
    name = plugin.__name__
    _check_options(plugin)
    modality = plugin(plugin.Options())
    for metric in modality.metrics:
        _check_named(metric, METRICS, f"{name}.metrics names")
    assert modality.metrics, f"{name}.metrics is empty; name the leading metric first"
    for slot, registry in (("operator", OPERATORS), ("embedding", EMBEDDINGS)):
        _check_slot(getattr(modality, slot), registry, f"{name}.{slot}")
    suffix = plugin.sample_suffix
    assert suffix.startswith("."), f"{name}.sample_suffix is '{suffix}'; it begins with a dot"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sample{suffix}"
        modality.sample(path)
        assert path.is_file(), f"{name}.sample wrote no {path.name}"
        assert plugin.claims(path), f"{name} does not claim its own sample"
        dataset = modality.read(path)
        _check_dataset(modality, dataset)
        if dataset.grid_shape is not None:
            _check_round_trip(modality, dataset, Path(folder))
            try:
                modality.write(Path(folder) / "out.unheard-of", _stored(dataset), dataset.metadata)
            except ConfigError:
                pass
            else:
                raise AssertionError(f"{name}.write takes any suffix; one that it does not write is a ConfigError")
        damaged = Path(folder) / f"damaged{suffix}"
        whole = path.read_bytes()
        for damage, content in (("cut in half", whole[: len(whole) // 2]), ("noise", random.Random(0).randbytes(4096))):
            damaged.write_bytes(content)
            try:
                modality.read(damaged)
            except DataError as error:
                assert "\n" not in str(error), f"{name}.read tells of a file that is {damage} in more than a line"
            except Exception as error:
                raise AssertionError(
                    f"{name}.read raises {type(error).__name__} for a file that is {damage}; it should be a DataError"
                ) from error


def check_selector(plugin: type[Selector], *, steps: int = 12) -> None:
    """Check that a selector gives as many distinct indices as it announces, and resumes exactly from a checkpoint.

    Args:
        plugin: the selector's class.
        steps: T.
    """
    name = plugin.__name__
    _check_options(plugin)
    for count in (1, 2, 7, 100, 1003):
        whole = _selections(_selector(plugin, count), 1, steps, steps)
        again = _selections(_selector(plugin, count), 1, steps, steps)
        assert _same(whole, again), f"{name} selects differently with the same seed (N = {count})"
        half = _selector(plugin, count)
        _selections(half, 1, steps // 2, steps)
        resumed = _selector(plugin, count, seed=1)
        resumed.load_state_dict(_checkpointed(half.state_dict(), name))
        rest = _selections(resumed, steps // 2 + 1, steps, steps)
        assert _same(whole[steps // 2 :], rest), f"{name} goes on differently after state_dict, load_state_dict"
        kept = resumed.numbers_kept
        assert math.isfinite(kept) and kept >= 0, f"{name}.numbers_kept is {kept}; it must be a number of at least 0"
    before = _global_generators()
    _selections(_selector(plugin, 100), 1, steps, steps)
    assert _global_generators() == before, f"{name} draws from a global generator; draw from self.generator"


def check_network(plugin: type[Network]) -> None:
    """Check a network's shapes, precision, gradients and reproducibility, and that a saved one loads as the same."""
    name = plugin.__name__
    _check_options(plugin)
    for dimensions, channels in ((1, 1), (2, 3), (3, 1), (4, 2)):
        network = _network(plugin, dimensions, channels)
        points = torch.rand(24, dimensions, generator=torch.Generator().manual_seed(0)) * 2 - 1
        values = network(points)
        sizes = f"D = {dimensions}, C = {channels}"
        assert torch.isfinite(values).all(), f"{name} gives values that are not finite ({sizes})"
        for shape in ((), (1,), (24,), (4, 6), (2, 3, 4), (0,)):
            given = points[0] if shape == () else points[: math.prod(shape)].reshape(*shape, dimensions)
            found = network(given)
            expected = (*shape, channels)
            assert found.shape == expected, f"{name} maps {tuple(given.shape)} to {tuple(found.shape)}, not {expected}"
            assert found.dtype == torch.float32, f"{name} gives {found.dtype}; it must be float32 ({sizes})"
            near = torch.allclose(found.reshape(-1, channels), values[: math.prod(shape)], rtol=1e-3, atol=1e-4)
            assert near, f"{name} gives a coordinate another value beside others ({sizes}); it must see each alone"
        values.square().mean().backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        finite = bool(gradients) and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert finite, f"{name} has no gradients, or some that are not finite ({sizes})"
        again = _network(plugin, dimensions, channels)(points)
        assert torch.equal(values, again), f"{name} draws its parameters from another generator than torch's default"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "field.safetensors"
            _field(network, dimensions).save(path)
            loaded = Field.load(path, trust=True).network(points)
        assert torch.equal(values, loaded), f"{name} is another network after Field.save and Field.load ({sizes})"
        set_precision(network, "bfloat16")
        dtype = network(points).dtype
        assert dtype == torch.float32, f"{name} gives {dtype} with bfloat16 products; it must give float32"


def check_operator(plugin: type[FitnessOperator]) -> None:
    """Check that all ways to apply a fitness operator are the one linear map that its rows are.

    A signal that it refuses with a ConfigError, such as one without a lattice, is passed over.
    """
    name = plugin.__name__
    _check_options(plugin)
    random = torch.Generator().manual_seed(0)
    for shape, free in (((60,), False), ((9, 7), False), ((4, 5, 6), False), ((60,), True)):
        count = math.prod(shape)
        points = (2 * torch.rand(count, 2, generator=random) - 1).numpy() if free else None
        values = torch.randn(*shape, 1, generator=random).numpy()
        try:
            operator = plugin(plugin.Options(), Signal(CoordinateDataset(values, points=points)))
        except ConfigError:
            continue
        where = f"(N = {count}, {'free points' if free else 'a lattice of ' + '×'.join(map(str, shape))})"
        every = torch.arange(count)
        columns, weights = operator.rows(every)
        good = columns.shape == weights.shape and len(columns) == count and columns.dtype == torch.int64
        assert good, f"{name}.rows gives {tuple(columns.shape)} {columns.dtype} columns, not (k, M) int64 {where}"
        within = bool(((columns >= 0) & (columns < count) | (weights == 0)).all()) and bool(weights.isfinite().all())
        assert within, f"{name}.rows names columns outside 0 to N − 1, or weights that are not finite {where}"
        matrix = torch.zeros(count, count).index_put_((every[:, None], columns), weights, accumulate=True)
        field = torch.randn(count, generator=random)
        part = torch.randperm(count, generator=random)[: count // 3]
        alone = torch.zeros(count).index_put_((part,), field[part])
        ways = {
            "response": (operator.response(field), matrix @ field),
            "adjoint": (operator.adjoint(field), matrix.T @ field),
            "response_at": (operator.response_at(field, part), (matrix @ field)[part]),
            "response_within": (operator.response_within(field, every), matrix @ field),
            "adjoint_at": (operator.adjoint_at(field[part], part, torch.zeros(count)), (matrix.T @ alone)[part]),
        }
        for way, (found, expected) in ways.items():
            same = found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
            assert same, f"{name}.{way} is not what {name}.rows says {where}"


def check_metric(plugin: type[Measure]) -> None:
    """Check that a metric rates a perfect reconstruction best and does not depend on slabs, or, if it asks the field,
    that it asks inside the signal, for few values, and always alike."""
    name = plugin.__name__
    assert (plugin.__doc__ or "").strip(), f"{name} has no docstring, the line that inrkit list shows"
    kinds = issubclass(plugin, Metric) + issubclass(plugin, FieldMetric)
    assert kinds == 1, f"{name} must derive from Metric, or from FieldMetric"
    for shape in ((6000,), (192, 180), (30, 24, 12)):
        phases = sum(0.3 * (axis + 1) * along for axis, along in enumerate(np.indices(shape))) / len(shape)
        dataset = CoordinateDataset(np.sin(np.asarray(phases)).astype(np.float32)[..., None])
        if not plugin.suits(dataset):
            continue
        try:
            plugin.of(dataset)
        except ConfigError:
            continue
        if issubclass(plugin, Metric):
            _check_metric(plugin, dataset)
        elif issubclass(plugin, FieldMetric):
            _check_field_metric(plugin, dataset)


def _check_metric(plugin: type[Metric], dataset: CoordinateDataset) -> None:
    name, shape = plugin.__name__, dataset.grid_shape or ()
    target = dataset.values.view(*shape, 1)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))

    def rated(prediction: Tensor, rows: int) -> float | None:
        metric = plugin.of(dataset)
        for part, true in zip(prediction.split(rows), target.split(rows), strict=True):
            metric.update(part, true)
        return metric.compute()

    perfect, noisy = rated(target.clone(), shape[0]), rated(target + 0.3 * noise, shape[0])
    if perfect is None or noisy is None:
        return
    better = perfect > noisy if plugin.higher_is_better else perfect < noisy
    assert better, f"{name} is {perfect:g} without an error and {noisy:g} with noise; see higher_is_better"
    slabs = rated(target + 0.3 * noise, shape[0] // 3)
    same = slabs is not None and math.isclose(slabs, noisy, rel_tol=1e-3, abs_tol=1e-3)
    assert same, f"{name} is {noisy:g} of the whole and {slabs} of its slabs; it must not depend on them"


def _check_field_metric(plugin: type[FieldMetric], dataset: CoordinateDataset) -> None:
    name, whole = plugin.__name__, len(dataset)
    before = dataset.values.clone()
    once, again = _Probe(dataset), _Probe(dataset)
    first, second = plugin.of(dataset).measure(once, whole), plugin.of(dataset).measure(again, whole)
    assert first == second, f"{name} is {first}, then {second} of the same field; it must ask for the same each time"
    assert first is None or not math.isnan(first), f"{name} is NaN; it must be None where it is undefined"
    assert once.asked <= whole, f"{name} asks for {once.asked:,} coordinates; it must keep below `most`, {whole:,}"
    assert torch.equal(before, dataset.values), f"{name} changes the signal"


class _Probe:
    """Predicts waves, whatever the signal is, and checks what it is asked for."""

    def __init__(self, dataset: CoordinateDataset) -> None:
        self._dataset = dataset
        self.asked = 0

    def __call__(self, coordinates: Tensor) -> Tensor:
        return torch.sin(3 * self._checked(coordinates).sum(dim=1, keepdim=True))

    def jacobian(self, coordinates: Tensor) -> Tensor:
        slopes = 3 * torch.cos(3 * self._checked(coordinates).sum(dim=1))
        return slopes[:, None, None].expand(-1, 1, self._dataset.dimensions)

    def _checked(self, coordinates: Tensor) -> Tensor:
        fine = coordinates.ndim == 2 and coordinates.shape[1] == self._dataset.dimensions
        assert fine, f"a metric asks at coordinates of shape {tuple(coordinates.shape)}; they must be (k, D)"
        assert bool((coordinates.abs() <= 1).all()), "a metric asks outside [−1, 1]"
        self.asked += len(coordinates)
        return coordinates


def _check_options(plugin: type) -> None:
    name, options = plugin.__name__, getattr(plugin, "Options", None)
    assert dataclasses.is_dataclass(options), f"{name}.Options is {options}; it must be a dataclass of options"
    assert isinstance(options, type)
    unexplained = sorted(field_names(options) - set(docstrings(options)))
    assert not unexplained, f"{options.__name__}.{unexplained[0]} has no docstring below it that explains it"
    for field in dataclasses.fields(options):
        defaulted = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        assert defaulted, f"{options.__name__}.{field.name} has no default; declare it with option(…)"
    assert (plugin.__doc__ or "").strip(), f"{name} has no docstring, the line that inrkit list shows"


def _check_slot(given: Any, registry: Registry[Any], where: str) -> None:
    name = given if isinstance(given, str) else given.get("name")
    _check_named(name, registry, f"{where} is")
    options = set() if isinstance(given, str) else set(given) - {"name"}
    unknown = sorted(options - field_names(registry.get(name).Options))
    assert not unknown, f"{where} sets '{unknown[0]}', which is no option of '{name}'"


def _check_named(name: Any, registry: Registry[Any], where: str) -> None:
    try:
        registry.get(name)
    except ConfigError as error:
        raise AssertionError(f"{where} '{name}', which is no {registry.kind}: {error}") from error


def _check_dataset(modality: Modality, dataset: CoordinateDataset) -> None:
    name, dimensions = type(modality).__name__, dataset.dimensions
    affine = dataset.affine
    assert np.isfinite(affine).all(), f"{name}.read gives an affine that is not finite"
    rank = np.linalg.matrix_rank(affine[:, :dimensions])
    assert rank == dimensions, f"{name}.read gives an affine that cannot be inverted"
    units = modality.units(dataset.metadata, dimensions)
    assert len(units) in (0, dimensions), f"{name}.units names {len(units)} units of {dimensions} axes"
    low, high = dataset.extent
    assert low < high, f"{name}.sample is constant, which tells nothing"
    kept = json.loads(json.dumps(dataset.metadata))
    assert kept == dataset.metadata, f"{name}.read gives metadata that JSON changes; keep to plain containers"
    coordinates = dataset.coordinates(slice(0, len(dataset)))
    assert bool((coordinates.abs() <= 1).all()), f"{name}.read gives points outside [−1, 1]"


def _check_round_trip(modality: Modality, dataset: CoordinateDataset, folder: Path) -> None:
    name = type(modality).__name__
    suffix = modality.reconstruction_suffix(dataset.metadata, dataset.dtype)
    path = folder / f"reconstruction{suffix}"
    modality.write(path, _stored(dataset), dataset.metadata)
    again = modality.read(path)
    if type(modality).export is not Modality.export:
        return  # it does not write the values, but for instance the surface that they describe
    found, expected = (
        (again.grid_shape, again.channels, again.dtype),
        (dataset.grid_shape, dataset.channels, dataset.dtype),
    )
    assert found == expected, f"{name} reads {found} of what it wrote as {suffix} of {expected}"
    assert torch.equal(again.values, dataset.values), f"{name} loses values in {suffix}, its format of reconstructions"
    assert np.allclose(again.affine, dataset.affine), f"{name} reads another affine of what it wrote as {suffix}"


def _stored(dataset: CoordinateDataset) -> np.ndarray:
    """(*grid_shape, C) values in the dtype of the file."""
    values = dataset.values.numpy()
    values = values.view(dataset.dtype) if values.dtype.itemsize == dataset.dtype.itemsize else values
    return values.astype(dataset.dtype).reshape(*(dataset.grid_shape or ()), dataset.channels)


def _selector(plugin: type[Selector], count: int, seed: int = 0) -> Selector:
    dataset = CoordinateDataset(np.zeros((count, 1), dtype=np.float32))
    operator = LatticeLaplacian(LaplacianOptions(), Signal(dataset))
    return plugin(plugin.Options(), count, operator, seed, torch.device("cpu"))


def _selections(selector: Selector, first: int, last: int, steps: int) -> list[Tensor]:
    """The indices of the steps from `first` to `last`, each checked; the errors depend only on the indices."""
    name, count = type(selector).__name__, selector.count
    wave = torch.sin(torch.arange(count) * 1.7)
    taken = []
    for step in range(first, last + 1):
        progress = Progress(step, steps)
        size = selector.size(progress)
        survey = selector.survey(progress)
        if survey is not None:
            asked = survey.indices
            residual = wave[asked] / step
            influence = residual.abs() if survey.influence else None
            selector.learn(progress, survey, Residuals(residual.square(), residual, influence=influence))
        assert 1 <= size <= count, f"{name}.size is {size} at step {step}; it must be 1 to N = {count}"
        selection = selector.select(progress)
        assert isinstance(selection, Selection), f"{name}.select gives {type(selection).__name__}, not a Selection"
        indices = selection.indices
        where = f"at step {step} of {steps}, N = {count}"
        assert indices.dtype == torch.int64 and indices.ndim == 1, f"{name} gives no (k,) int64 indices {where}"
        assert len(indices) == size, f"{name} selects {len(indices)} coordinates and says {size} {where}"
        assert len(indices.unique()) == size, f"{name} selects a coordinate twice {where}"
        inside = bool((indices >= 0).all() and (indices < count).all())
        assert inside, f"{name} selects indices outside 0 … N − 1 {where}"
        if selection.weights is not None:
            fine = selection.weights.shape == indices.shape and bool((selection.weights > 0).all())
            assert fine, f"{name} gives weights that are not one number above 0 for each index {where}"
        residual = wave[indices] / step
        factors = selector.weigh(progress, Residuals(residual.square(), residual))
        if factors is not None:
            fine = factors.shape == indices.shape and bool((factors > 0).all())
            assert fine, f"{name}.weigh gives factors that are not one number above 0 for each coordinate {where}"
            half = residual[: (len(residual) + 1) // 2]
            part = selector.weigh(progress, Residuals(half.square(), half))
            same = part is not None and torch.allclose(part, factors[: len(half)])
            assert same, f"{name}.weigh gives a coordinate another factor beside others {where}; chunks must not matter"
        slope = residual[:, None] if selector.needs_slope else None
        selector.observe(progress, selection, Residuals(residual.square(), residual, slope))
        taken.append(indices)
    return taken


def _global_generators() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), str(np.random.get_state(legacy=False)), random.getstate()


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _checkpointed(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The state as read back from a checkpoint: plain containers and tensors that share no memory with the old."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(f"{name}.state_dict holds more than plain containers, numbers and tensors") from error
    return loaded


def _network(plugin: type[Network], dimensions: int, channels: int) -> Network:
    dataset = CoordinateDataset(np.zeros((*[4] * dimensions, channels), dtype=np.float32))
    options = plugin.fitted(plugin.Options(), Signal(dataset))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plugin(options, dimensions, channels)


def _field(network: Network, dimensions: int) -> Field:
    plugin = type(network)
    names = {
        "network": f"{plugin.__module__}:{plugin.__qualname__}",
        "embedding": "identity",
        "transform": "identity",
        "modality": "none",
    }
    return Field(
        network=network,
        channels=network.channels,
        embedding=Identity(IdentityOptions(), dimensions),
        transform=IdentityTransform(),
        names=names,
        modality_options={},
        grid_shape=None,
        dtype=np.dtype(np.float32),
        value_range=None,
        affine=np.eye(dimensions, dimensions + 1),
        metadata={},
    )
