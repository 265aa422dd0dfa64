"""Whole numbers to bytes and back. constriction codes them; how likely each is, tables say that the file holds.

Nothing here depends on how a machine rounds: probabilities are ratios of whole numbers, which constriction makes fixed
point by single IEEE operations in float64.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from inrkit.errors import ConfigError

LARGEST = 1 << 22
"""Numbers are coded from −LARGEST to LARGEST."""
_DIRECT = 16
"""Numbers, counted 0, −1, 1, −2, …, that have a token each. A larger one shares a token with those within a fifth."""
_TOKENS = _DIRECT + 4 * 20
_CODES = 34
"""Likelihoods in a table: 0 for never, then each √½ of the one before."""
_LIKELIHOODS = np.array([0, *((65536, 46341)[code % 2] >> (code // 2) for code in range(_CODES - 1))], dtype=np.float64)
_LIKELIHOODS[1:] = np.maximum(_LIKELIHOODS[1:], 1)
_TABLES = 1 << 20
"""Most bytes of all tables."""


class Encoder:
    """Codes matrices of whole numbers, one after the other. `Decoder` gives them back in the same order."""

    def __init__(self) -> None:
        self._coded: list[tuple[np.ndarray, Any]] = []
        self._tables = bytearray()

    def add(self, numbers: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
        """Code a matrix.

        Args:
            numbers: (R, K) integers, −LARGEST to LARGEST.
            rows: (R,) integers; numbers with equal sum of row's and column's are taken to be spread alike.
            columns: (K,) likewise.

        Raises:
            OverflowError: a number is too large.
        """
        if numbers.size and max(-int(numbers.min()), int(numbers.max())) > LARGEST:
            raise OverflowError("a number is too large to be coded")
        model = _models()
        for chosen in _alike(rows, columns):
            values = numbers.reshape(-1)[chosen].astype(np.int64)
            tokens, rests, bits = _tokens(values)
            codes = _codes(np.bincount(tokens))
            self._tables += bytes([len(codes)]) + codes.tobytes()
            present = np.flatnonzero(codes)
            if len(present) > 1:
                places = np.searchsorted(present, tokens).astype(np.int32)
                self._coded.append((places, _categorical(model, codes[present])))
            for token in present[present >= _DIRECT]:
                mine = tokens == token
                self._coded.append((rests[mine].astype(np.int32), model.Uniform(1 << int(bits[mine][0]))))

    def bytes(self) -> tuple[bytes, bytes]:
        """The tables, and the coded numbers."""
        coder = _constriction().stream.stack.AnsCoder()
        for symbols, model in reversed(self._coded):  # what is decoded first goes on top of the stack last
            coder.encode_reverse(symbols, model)
        words = coder.get_compressed().astype("<u4").tobytes()
        return zlib.compress(bytes(self._tables), 9), words


class Decoder:
    """Gives back what an `Encoder` coded, if it is asked in the same order. Foreign bytes give foreign numbers.

    Args:
        tables: as `Encoder.bytes` gives them.
        words: likewise.

    Raises:
        ValueError: no encoder wrote these.
    """

    def __init__(self, tables: bytes, words: bytes) -> None:
        self._tables = inflated(tables, _TABLES)
        self._at = 0
        stack = np.frombuffer(words, dtype="<u4").astype(np.uint32)
        if len(stack) and not stack[-1]:
            raise ValueError("coded numbers")
        self._coder = _constriction().stream.stack.AnsCoder(stack)

    def numbers(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(R, K) int64, the next matrix.

        Args:
            rows: as they were given to the encoder.
            columns: likewise.
        """
        model = _models()
        found = np.zeros(len(rows) * len(columns), dtype=np.int64)
        for chosen in _alike(rows, columns):
            count = len(found) if isinstance(chosen, slice) else len(chosen)
            codes = self._table()
            present = np.flatnonzero(codes)
            if len(present) > 1:
                tokens = present[self._coder.decode(_categorical(model, codes[present]), count)]
            else:
                tokens = np.full(count, present[0])
            bases, bits = _ranges(tokens)
            for token in present[present >= _DIRECT]:
                mine = np.flatnonzero(tokens == token)
                if len(mine):
                    bases[mine] += self._coder.decode(model.Uniform(1 << int(bits[mine[0]])), len(mine))
            found[chosen] = (bases >> 1) ^ -(bases & 1)
        return found.reshape(len(rows), len(columns))

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ValueError: something is.
        """
        if self._at != len(self._tables) or not self._coder.is_empty():
            raise ValueError("coded numbers are left over")

    def _table(self) -> np.ndarray:
        length = self._tables[self._at] if self._at < len(self._tables) else 0
        codes = np.frombuffer(self._tables[self._at + 1 : self._at + 1 + length], dtype=np.uint8)
        self._at += 1 + length
        if not 0 < length == len(codes) <= _TOKENS or codes.max() >= _CODES or not codes.any():
            raise ValueError("tables")
        return codes


def inflated(data: bytes, most: int, words: bytes = b"") -> bytes:
    """What zlib compressed, of `most` bytes at most.

    Args:
        data: that is compressed.
        most: bytes.
        words: that it was compressed with.

    Raises:
        ValueError: it is damaged, or larger.
    """
    machine = zlib.decompressobj(zdict=words)
    try:
        found = machine.decompress(data, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not machine.eof or machine.unused_data:
        raise ValueError("compressed data")
    return found


def require_coder() -> None:
    """Check that constriction is installed.

    Raises:
        ConfigError: it is not.
    """
    _constriction()


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise ConfigError("compressed fields need constriction; pip install 'inrkit[compress]'") from error
    return constriction


def _models() -> Any:
    return _constriction().stream.model


def _categorical(model: Any, codes: np.ndarray) -> Any:
    """The distribution that the codes of a table's tokens stand for."""
    return model.Categorical(_LIKELIHOODS[codes], perfect=False)


def _alike(rows: np.ndarray, columns: np.ndarray) -> list[Any]:
    """Where in a flat matrix the sums of rows' and columns' numbers are the same, for each sum in ascending order."""
    if not len(rows) or not len(columns):
        return []
    if (rows == rows[0]).all() and (columns == columns[0]).all():
        return [slice(None)]
    rows, of_rows = np.unique(rows, return_inverse=True)
    columns, of_columns = np.unique(columns, return_inverse=True)
    kinds, sums = np.unique(rows[:, None] + columns[None], return_inverse=True)
    kind = sums.reshape(len(rows), -1)[of_rows[:, None], of_columns[None]].astype(np.int16).ravel()
    order = np.argsort(kind, kind="stable")
    return np.split(order, np.searchsorted(kind[order], np.arange(1, len(kinds))))


def _tokens(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of numbers, what they leave open, and of how many bits that is."""
    counted = np.where(values < 0, -2 * values - 1, 2 * values)
    exponents = np.frexp(np.maximum(counted, 1).astype(np.float64))[1].astype(np.int64) - 1
    bits = np.maximum(exponents - 2, 0)
    large = counted >= _DIRECT
    tokens = np.where(large, _DIRECT + 4 * (exponents - 4) + ((counted >> bits) & 3), counted)
    return tokens, np.where(large, counted & ((1 << bits) - 1), 0), bits


def _ranges(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least number, counted from 0, of each token, and how many bits it leaves open."""
    above = np.maximum(tokens.astype(np.int64) - _DIRECT, 0)
    bits = above // 4 + 2
    large = tokens >= _DIRECT
    return np.where(large, (4 + above % 4) << bits, tokens), np.where(large, bits, 0)


def _codes(counts: np.ndarray) -> np.ndarray:
    """(m,) uint8 a table for (m,) counts of tokens."""
    most = counts.max()
    return np.array(
        [min(_CODES - 1, 1 + round(2 * math.log2(most / count))) if count else 0 for count in counts.tolist()],
        dtype=np.uint8,
    )
