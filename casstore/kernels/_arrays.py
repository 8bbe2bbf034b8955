"""What the kernels take, made into the one form that they work on. Whatever does not fit: ValueError."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..model import U8, Buffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Unsigned = TypeVar("Unsigned", np.uint8, np.uint32, np.uint64)


def column(values: Any, dtype: type[Unsigned]) -> NDArray[Unsigned]:
    """Integers as a contiguous one-dimensional array of `dtype`; no copy if they are one already."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"one dimension is wanted, not {array.ndim}")
    if array.dtype != dtype and array.size:
        if array.dtype.kind not in "ui":
            raise ValueError(f"integers are wanted, not {array.dtype}")
        if int(array.min()) < 0 or int(array.max()) > np.iinfo(dtype).max:
            raise ValueError(f"numbers outside of {np.dtype(dtype)}")
    return np.ascontiguousarray(array, dtype)


def columns(dtype: type[Unsigned], *values: Any) -> list[NDArray[Unsigned]]:
    """Several columns, which must be equally long."""
    arrays = [column(each, dtype) for each in values]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"columns differ in length: {', '.join(str(len(array)) for array in arrays)}")
    return arrays


def digest_rows(digests: Any) -> U8:
    """Digests as a contiguous (n, 32) array of bytes."""
    array = np.asarray(digests)
    if array.ndim != 2 or array.shape[1] != 32 or array.dtype != np.uint8:
        raise ValueError(f"digests are (n, 32) uint8, not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def octets(buffer: Buffer) -> memoryview:
    """Any C-contiguous buffer as plain bytes."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise BufferError("a C-contiguous buffer is wanted")
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def within(what: str, number: int, limit: int) -> int:
    """`number` if 0 ≤ number ≤ limit."""
    if not 0 <= number <= limit:
        raise ValueError(f"{what} {number} is not in 0 … {limit}")
    return number
