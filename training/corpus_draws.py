"""Random draws that are a pure function of what they are for: whoever asks first, and where, changes nothing.

The generator is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 17).
NumPy's own streams may change from one of its versions to the next, and a generator takes it longer to make than most
documents take to use.
"""

from __future__ import annotations

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def mix(value: int) -> int:
    """64 bits from 64 bits, each of which depends on all."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def mix_array(values: np.ndarray) -> np.ndarray:
    """`mix` of each of uint64 values."""
    values = values.astype(np.uint64) + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


class Draw:
    """The draws for one key, such as (seed, document, copy)."""

    def __init__(self, *key: int):
        state = 0
        for part in key:
            state = mix(state ^ (part & _MASK))
        self._state = state

    def bits(self) -> int:
        """64 random bits."""
        bits = mix(self._state)
        self._state = (self._state + _GOLDEN) & _MASK
        return bits

    def below(self, most: int) -> int:
        """A whole number from 0 to `most` - 1."""
        return (self.bits() * most) >> 64

    def between(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`, both included."""
        return least + self.below(most - least + 1)

    def chance(self, probability: float) -> bool:
        return self.bits() < probability * 2.0**64

    def heads(self, coins: int) -> int:
        """How many of that many fair coins show heads."""
        count = 0
        while coins >= 64:
            count += self.bits().bit_count()
            coins -= 64
        return count + (self.bits() >> (64 - coins)).bit_count() if coins else count
