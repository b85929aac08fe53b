"""Data parallelism: R processes with n sentences each compute what one with R n would.

Every term of the objective that is not a mean over sentences (circle losses, L_SQ, InfoNCE) needs
the other processes' codes. So a rank encodes and decodes its own sentences; the codes, which are
small, are gathered; from there on every rank computes the same numbers of the whole batch: the
critics' updates, divergence, contrast, loss. A gathered row's gradient belongs to the rank whose
row it is, so that the gradients of the ranks add up to that of the whole batch.
"""

from __future__ import annotations

import os

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.devices.choosing import RANK_COUNTS, is_rank
from mindspore_cvae.errors import InputError


class Processes(nn.Cell):
    """The only process: it owns every row, and there is nothing to gather or to add."""

    rank = 0
    size = 1

    def own(self, rows: Tensor) -> Tensor:
        """Rows (N, ...) of the batch -> this rank's (n, ...)."""
        return rows

    def gather(self, rows: Tensor) -> Tensor:
        """This rank's rows (V n, ...) of V views -> those of all ranks (V N, ...), views first."""
        return rows

    def gather_once(self, rows: Tensor) -> Tensor:
        """:meth:`gather` of rows (n, ...) that each sentence has one of."""
        return rows

    def add(self, gradients: tuple) -> tuple:
        """Sums over ranks."""
        return gradients

    def average(self, gradients: tuple) -> tuple:
        """Means over ranks."""
        return gradients

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums over ranks of arrays that at most one rank has filled in, float64."""
        return values


ALONE = Processes()
"""The usual case."""


class Ranks(Processes):
    """One of several processes.

    Args:
        rank: its number, from 0.
        size: how many there are.
        views: V, how many blocks of rows the codes of a batch have.
    """

    def __init__(self, rank: int, size: int, views: int):
        super().__init__()
        self.rank, self.size = rank, size
        self.gathering = Gather(rank, size, views)
        self.gathering_once = Gather(rank, size, 1)
        self.all_reduce = ops.AllReduce()

    def own(self, rows: Tensor) -> Tensor:
        each = rows.shape[0] // self.size
        return rows[self.rank * each : (self.rank + 1) * each]

    def gather(self, rows: Tensor) -> Tensor:
        return self.gathering(rows)

    def gather_once(self, rows: Tensor) -> Tensor:
        return self.gathering_once(rows)

    def add(self, gradients: tuple) -> tuple:
        added: tuple = ()
        for gradient in gradients:
            added += (self.all_reduce(gradient),)
        return added

    def average(self, gradients: tuple) -> tuple:
        means: tuple = ()
        for gradient in gradients:
            means += (self.all_reduce(gradient) / self.size,)
        return means

    def total(self, values: np.ndarray) -> np.ndarray:
        # Two float32 numbers hold 48 bits and more of a float64; the sums add nothing to the error,
        # for the other ranks' values are 0.
        upper = values.astype(np.float32)
        lower = (values - upper).astype(np.float32)
        parts = self.all_reduce(Tensor(np.stack((upper, lower)))).asnumpy().astype(np.float64)
        return parts[0] + parts[1]


MPI_COUNT = "OMPI_COMM_WORLD_SIZE"
"""The variable with the number of processes that mpirun has started."""


class Gather(nn.Cell):
    """(V n, ...) of this rank -> (V N, ...) of all ranks, N = R n, each view's ranks in order.

    It is a sum of blocks padded with zeros, since CPUs have no operator for the gradient of a
    gathering one. The gradient needs no communication: every rank computes the same loss of all
    rows, and keeps the gradient at its own.
    """

    def __init__(self, rank: int, size: int, views: int):
        super().__init__()
        self.rank, self.size, self.views = rank, size, views
        self.place = Tensor((np.arange(size) == rank).astype(np.float32).reshape(1, size, 1))
        self.all_reduce = ops.AllReduce()

    def construct(self, rows: Tensor) -> Tensor:
        blocks = rows.reshape((self.views, 1, -1)) * self.place
        return self.all_reduce(blocks).reshape((rows.shape[0] * self.size, *rows.shape[1:]))

    def bprop(self, rows: Tensor, gathered: Tensor, at_gathered: Tensor) -> tuple:
        each = rows.shape[0] // self.views
        blocks = at_gathered.reshape((self.views, self.size, each, *rows.shape[1:]))
        return (blocks[:, self.rank].reshape(rows.shape),)


def join(views: int) -> Processes:
    """Meets the other processes, if there are any; the device must have been chosen before.

    Args:
        views: V of the system.
    """
    if not is_rank():
        return ALONE
    from mindspore import communication

    try:
        communication.init()
    except (RuntimeError, ValueError) as error:
        # MindSpore, imported, sets RANK_SIZE itself where mpirun's variable is set.
        names = (MPI_COUNT,) if MPI_COUNT in os.environ else RANK_COUNTS
        named = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{' and '.join(named)} in the environment says that this process is one of several, "
            f"and they do not meet ({reason}): unset it to train with this one alone"
        ) from error
    rank, size = communication.get_rank(), communication.get_group_size()
    return ALONE if size == 1 else Ranks(rank, size, views)


def is_first() -> bool:
    """Whether this process is the one that writes files; after :func:`join`."""
    if not is_rank():
        return True
    from mindspore import communication

    return communication.get_rank() == 0
