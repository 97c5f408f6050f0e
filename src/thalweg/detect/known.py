"""The rows of a fit and how strange they are to the members that have not seen them, found again by their content."""

import hashlib

import numpy


class Known:
    """Strangeness by row: `keys` [M] uint64, rising, and `strangeness` [M] float64, the mean over copies of a row."""

    def __init__(self, keys: numpy.ndarray, strangeness: numpy.ndarray) -> None:
        self.keys, self.strangeness = keys, strangeness

    @classmethod
    def of(cls, x: numpy.ndarray, strangeness: numpy.ndarray) -> "Known":
        """Of rows x [N, D] float32 and their strangeness [N]."""
        keys, place, count = numpy.unique(row_keys(x), return_inverse=True, return_counts=True)
        return cls(keys, numpy.bincount(place, strangeness) / count)

    def find(self, x: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Which of the rows x [N, D] are known, and the strangeness of those (0 of others): [N] bool, [N]."""
        keys = row_keys(x)
        place = numpy.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        known = self.keys[place] == keys
        return known, numpy.where(known, self.strangeness[place], 0.0)


def row_keys(x: numpy.ndarray) -> numpy.ndarray:
    """A number of 64 bits for each row [N, D] that equal rows share: [N] uint64."""
    rows = numpy.ascontiguousarray(x + 0.0, dtype=numpy.float32)  # −0 as 0
    return numpy.array([int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little") for row in rows], numpy.uint64)
