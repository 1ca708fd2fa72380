"""HyperLogLog registers: how many different values, in a fixed number of bytes (Flajolet et al., 2007).

A value is mixed (splitmix64), the upper bits name a register, the leading zeros of the next 32 bits are its
rank; a register holds the largest rank. Ranks end at 32, so that the sum of 2^-rank is exact in a double in
any order, and the estimate is the same bits everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.view_math import ln

MAX_RANK = 32
_MASK = (1 << 64) - 1
_ALPHA = {32: 0.697, 64: 0.709, 128: 0.7213 / (1 + 1.079 / 128), 256: 0.7213 / (1 + 1.079 / 256)}
_HIT: dict[tuple[int, int, int], bytes] = {}


def _mixed(value: int) -> int:
    mixed = (value + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
    return mixed ^ mixed >> 31


def one_register(value: int, registers: int) -> bytes:
    """The registers of one value alone."""
    mixed = _mixed(value & _MASK)
    bits = registers.bit_length() - 1
    index = mixed >> (64 - bits)
    rank = min(33 - (mixed << bits & _MASK).__rshift__(32).bit_length(), MAX_RANK)
    known = _HIT.get((registers, index, rank))
    if known is None:
        known = _HIT[registers, index, rank] = bytes(index) + bytes([rank]) + bytes(registers - index - 1)
    return known


def merge_registers(one: bytes, other: bytes) -> bytes:
    """The registers of both sets together."""
    return bytes(map(max, one, other))


def register_columns(values: NDArray, registers: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(register, rank) of a column of 64-bit values."""
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    bits = registers.bit_length() - 1
    index = (mixed >> np.uint64(64 - bits)).astype(np.int64)
    next_32 = mixed << np.uint64(bits) >> np.uint64(32)
    # The exponent of a double is the bit length of an integer below 2**53.
    lengths = np.frexp(next_32.astype(np.float64))[1]
    return index, np.minimum(33 - lengths, MAX_RANK).astype(np.uint8)


def estimate(registers: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of rows of registers [n, m]: how many different values, [n]."""
    m = registers.shape[1]
    total = np.ldexp(1.0, -registers.astype(np.int32)).sum(axis=1)
    raw = _ALPHA[m] * (m * m) / total
    empty = (registers == 0).sum(axis=1)
    small = m * ln(m / np.maximum(empty, 1).astype(np.float64))
    return np.where((raw <= 2.5 * m) & (empty > 0), small, raw)
