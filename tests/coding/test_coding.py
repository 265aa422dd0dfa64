"""Tensors as whole numbers, whole numbers as bytes, and the file that holds them."""

import hashlib
import json
import random
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from inrkit import DataError
from inrkit.coding.entropy import LARGEST, Decoder, Encoder, inflated
from inrkit.coding.file import MARK, WORDS, packed, read, unpacked
from inrkit.coding.initial import found_initial
from inrkit.coding.tensors import Exact, Initial, Short, Stepped, of_short, short, uniform_stream
from inrkit.networks.siren import Siren, SirenOptions

DIGESTS = ["ff0481691b70d8ee", "d1e845353adcfc56", "12e3de2659623c5a"]
"""Of some tables, coded numbers and tensors; they are a part of the format."""


def flat(count):
    return np.zeros(count, dtype=np.int64)


def a_stepped(draws, initial=None):
    return Stepped(
        "weights",
        (30, 12),
        draws.randint(-9, 10, (30, 12)),
        (4, 8),
        (short(0.01), short(0.3)),
        (0, 3),
        draws.randint(0, 9, 30),
        2,
        initial=initial,
    )


def some_parts():
    draws = np.random.RandomState(0)
    return [
        a_stepped(draws, Initial(7, 5, 40, (3, -1), (0.25, 0.0))),
        Stepped("means", (6, 2), draws.randint(-50, 50, (6, 2)), (2,), (short(0.1),), (0,), running=True),
        Stepped("pair", (2, 3), draws.randint(-5, 5, (1, 12)), (12,), (short(1.5),), (0,), dtype="complex64"),
        Short("spreads", (4,), np.array([short(each) for each in (0.5, 1.0, 1e-3, 3.0)])),
        Exact("slots", np.array([0, 1, -1, 2])),
        Exact("table", np.arange(6, dtype=np.float32).reshape(2, 3) / 7),
    ]


@pytest.mark.parametrize("spread", [0.0, 0.2, 2.0, 50.0, 1e5])
def test_numbers_come_back_and_cost_about_their_entropy(spread):
    generator = np.random.default_rng(1)
    numbers = np.rint(generator.laplace(size=(50, 400)) * spread).astype(np.int64).clip(-LARGEST, LARGEST)
    encoder = Encoder()
    encoder.add(numbers, flat(50), flat(400))
    tables, words = encoder.bytes()
    decoder = Decoder(tables, words)
    assert (decoder.numbers(flat(50), flat(400)) == numbers).all()
    decoder.finish()
    if 0 < spread < 1000:  # above, 20,000 numbers do not show their entropy
        _, counts = np.unique(numbers, return_counts=True)
        entropy = -(counts * np.log2(counts / numbers.size)).sum() / 8
        assert entropy <= len(words) + 4 <= 1.02 * entropy + 4


def test_the_largest_numbers_are_coded_and_larger_ones_refused():
    ends = np.array([[-LARGEST, LARGEST, 0, -1, 1, 7, 8, -8, -9]])
    encoder = Encoder()
    encoder.add(ends, flat(1), flat(9))
    assert (Decoder(*encoder.bytes()).numbers(flat(1), flat(9)) == ends).all()
    with pytest.raises(OverflowError):
        encoder.add(ends + 1, flat(1), flat(9))


def test_rows_and_columns_of_one_scale_share_a_table():
    generator = np.random.default_rng(2)
    rows, columns = np.array([0, 8] * 40), np.array([0] * 50 + [8] * 50)
    numbers = np.rint(generator.laplace(size=(80, 100)) * 2.0 ** ((rows[:, None] + columns) / 2)).astype(np.int64)
    together, apart = Encoder(), Encoder()
    apart.add(numbers, rows, columns)
    together.add(numbers, flat(80), flat(100))
    assert len(apart.bytes()[1]) < 0.9 * len(together.bytes()[1])
    assert (Decoder(*apart.bytes()).numbers(rows, columns) == numbers).all()


def test_a_short_float_is_correct_to_one_part_in_4096():
    for value in (1e-9, 0.3, 1.0, 77.7, 1e9):
        assert float(of_short(short(value))) == pytest.approx(value, rel=1 / 4096)


def test_steps_decode_as_their_formula_says():
    initial = Initial(7, 5, 40, (3, -1), (0.25, 0.0))
    part = a_stepped(np.random.RandomState(3), initial)
    stream = np.random.RandomState(7).randint(0, 2**32, 200, dtype=np.uint32)  # the Mersenne twister, by numpy's door
    tensor = part.tensor()
    for row, column in ((0, 0), (7, 3), (29, 4), (12, 11)):
        group = 0 if column < 4 else 1
        quarters = int(part.quarters[row])
        root = np.float32([1, 2**0.25, 2**0.5, 2**0.75][quarters % 4]) * np.float32(2 ** (quarters // 4))
        step = of_short(part.steps[group]) / root
        told = 0
        if group == 0:
            drawn = int(stream[row % 5 * 40 + 3 + column]) & 0xFFFFFF
            told = round(Fraction(2 * drawn - 2**24, 2**24) * Fraction(1, 4) / Fraction(float(step)))
        assert tensor[row, column] == np.float32(int(part.numbers[row, column]) + told) * step


def test_the_stream_is_that_of_torch():
    torch_floats = torch.empty(700).uniform_(-1, 1, generator=torch.Generator().manual_seed(12345))
    ours = (2 * uniform_stream(12345, 700) - (1 << 24)) / (1 << 24)
    assert np.abs(torch_floats.numpy() - ours).max() < 1e-6


def test_initial_weights_are_found_where_training_left_them_near():
    torch.manual_seed(3)
    draws = [Siren(SirenOptions(hidden_features=6, hidden_layers=1), 2, 3) for _ in range(4)]
    drawn = torch.stack([torch.nn.utils.parameters_to_vector(each.parameters()) for each in draws]).detach().numpy()
    widths = [each.numel() for each in draws[0].parameters()]
    generator = np.random.default_rng(0)
    trained = drawn[np.arange(10) % 4] + 1e-3 * generator.standard_normal((10, drawn.shape[1]))
    trained[:, -widths[-1] - widths[-2] :] += generator.standard_normal((10, widths[-1] + widths[-2]))  # the last layer
    initial = found_initial(drawn, trained, widths, 3)
    assert [offset >= 0 for offset in initial.offsets] == [True, True, True, True, False, False]
    near = initial.values(10, tuple(widths))
    assert np.abs(near - trained)[:, : sum(widths[:4])].max() < 0.01
    assert found_initial(drawn, trained, widths, 4) is None  # another seed
    assert found_initial(generator.standard_normal(drawn.shape), trained, widths, 3) is None


def test_a_file_gives_back_what_was_packed(tmp_path):
    parts = some_parts()
    path = tmp_path / "a.inr"
    path.write_bytes(packed({"format": 1, "of": "λ"}, parts))
    description, tensors = read(path)
    assert description == {"format": 1, "of": "λ"}
    assert list(tensors) == [part.name for part in parts]
    for part in parts:
        assert tensors[part.name].dtype == part.tensor().dtype
        assert np.array_equal(tensors[part.name], part.tensor())


def test_the_format_stays_as_it_is():
    # Another platform, another constriction and another numpy must read the same numbers from the same bytes.
    encoder = Encoder()
    encoder.add(np.arange(-40, 60).reshape(10, 10) ** 3 // 50, np.arange(10) // 4, np.arange(10) // 7)
    tables, words = encoder.bytes()
    tensors = unpacked(packed({}, some_parts()))[1]
    values = b"".join(tensors[name].tobytes() for name in sorted(tensors))
    assert [hashlib.sha256(each).hexdigest()[:16] for each in (zlib.decompress(tables), words, values)] == DIGESTS


def resealed(content):
    """The content with a checksum that is right."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError) as told:
        read(path)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


def test_a_damaged_file_is_told_in_a_line(tmp_path):
    path = tmp_path / "a.inr"
    content = packed({"format": 1}, some_parts())
    for length in range(8, len(content), 11):
        refused(path, content[:length])
    for at in range(8, len(content), 9):
        refused(path, content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
    assert "version 2" in refused(path, MARK + b"\2" + content[9:])


def test_a_hostile_file_does_no_harm(tmp_path):
    generator = random.Random(0)
    content = packed({"format": 1}, some_parts())
    for _ in range(200):
        mutated = bytearray(content)
        for _ in range(generator.choice((1, 1, 2, 8))):
            mutated[generator.randrange(8, len(mutated) - 4)] = generator.randrange(256)
        (tmp_path / "a.inr").write_bytes(resealed(bytes(mutated)))
        try:
            _, tensors = read(tmp_path / "a.inr")
        except DataError:
            continue
        assert sum(tensor.size for tensor in tensors.values()) <= 16 * len(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [1 << 35, 12]),
        ("shape", [30, 12, 0]),
        ("shape", [30.0, 12]),
        ("shape", "many"),
        ("rows", 1 << 40),
        ("rows", -1),
        ("widths", [4, 8, 1 << 30]),
        ("steps", [0, 0]),
        ("steps", [1e9, 3]),
        ("classes", [0, 1 << 40]),
        ("per_class", 1 << 60),
        ("kind", "pickle"),
        ("dtype", "object"),
        ("initial", {"seed": 0, "draws": 1, "stride": 1 << 50, "offsets": [0, 0], "bounds": [1, 1]}),
        ("initial", {"seed": -1, "draws": 5, "stride": 40, "offsets": [0, 0], "bounds": [1, 1]}),
        ("initial", {"seed": 0, "draws": 5, "stride": 40, "offsets": [39, 0], "bounds": [1, 1]}),
        ("initial", {"seed": 0, "draws": 5, "stride": 40, "offsets": [0, 0], "bounds": [1e400, 1]}),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, key, value):
    content = packed({"format": 1}, [a_stepped(np.random.RandomState(0))])
    length = struct.unpack_from("<I", content, 12)[0]
    said = json.loads(inflated(content[24 : 24 + length], 1 << 20, WORDS))
    said["tensors"][0][key] = value
    machine = zlib.compressobj(zdict=WORDS)
    words = machine.compress(json.dumps(said).encode()) + machine.flush()
    lying = content[:12] + struct.pack("<I", len(words)) + content[16:24] + words + content[24 + length :]
    refused(tmp_path / "a.inr", resealed(lying))


def test_few_bytes_cannot_become_many_numbers(tmp_path):
    empty = Stepped("w", (400, 1000), np.zeros((400, 1000), dtype=np.int64), (1000,), (short(1.0),), (0,))
    content = packed({}, [empty])
    assert len(content) >= 400 * 1000 / 16  # filled up, because nothing but zeros takes no bits
    (tmp_path / "a.inr").write_bytes(content)
    assert not read(tmp_path / "a.inr")[1]["w"].any()
    assert "promises" in refused(tmp_path / "a.inr", resealed(content[:2000]))
    bomb = zlib.compress(b"[" * (1 << 24))
    head = struct.pack("<8sB3xIII", MARK, 1, len(bomb), 0, 0)
    refused(tmp_path / "a.inr", resealed(head + bomb + bytes(4)))
