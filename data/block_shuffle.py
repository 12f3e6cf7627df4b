"""An order for training from disk: random, in constant memory, resumable.

The rows are cut into blocks of neighbours. In each epoch the blocks come in an
order that seed and epoch determine; as many as a pool holds are read together
and their rows shuffled.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data.randomness import permutation

# Two pools are in memory: one in use and one that is being read.
_POOL_BYTES = 64 * 2**20
_BLOCKS_IN_POOL = 64


@dataclasses.dataclass(frozen=True)
class ShuffledPools:
    """The pools of a run, numbered through all of its epochs.

    Attributes:
        count: number of rows.
        block_rows: rows in a block.
        pool_blocks: blocks in a pool.
        seed: determines the order.
        epoch_rows: rows used in an epoch: what does not fill a batch is left.
        start_row: the first row wanted, counted through all epochs.
        stop_row: the row to stop before, counted likewise.
    """

    count: int
    block_rows: int
    pool_blocks: int
    seed: int
    epoch_rows: int
    start_row: int
    stop_row: int

    @property
    def first(self) -> int:
        """Number of the first pool that is wanted."""
        epoch, row = divmod(self.start_row, self.epoch_rows)
        pool = int(np.searchsorted(self._pool_starts(epoch), row, "right")) - 1
        return epoch * self._pools_in_epoch + pool

    @property
    def stop(self) -> int:
        """Number after that of the last pool."""
        epochs = _divide_up(self.stop_row, self.epoch_rows)
        return epochs * self._pools_in_epoch

    def locate(self, number: int) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Returns what a pool holds.

        Args:
            number: of the pool.

        Returns:
            blocks of rows to read, (start, stop) each, in the order of the
            file; and the order in which to use their rows, int64.
        """
        epoch, pool = divmod(number, self._pools_in_epoch)
        blocks = [
            (block * self.block_rows, self._block_stop(block))
            for block in sorted(self._pool_blocks(epoch, pool).tolist())
        ]
        rows = sum(stop - start for start, stop in blocks)
        before = int(self._pool_starts(epoch)[pool])
        first = self.start_row - epoch * self.epoch_rows - before
        stop = self.epoch_rows - before
        order = permutation(self.seed, f"pool {pool}", epoch, rows)
        order = order[max(0, first) : max(0, stop)]
        return (blocks if len(order) else []), order

    @property
    def _pools_in_epoch(self) -> int:
        return _divide_up(self._block_count, self.pool_blocks)

    @property
    def _block_count(self) -> int:
        return _divide_up(self.count, self.block_rows)

    def _block_stop(self, block: int) -> int:
        return min((block + 1) * self.block_rows, self.count)

    def _block_order(self, epoch: int) -> np.ndarray:
        return permutation(self.seed, "blocks", epoch, self._block_count)

    def _pool_blocks(self, epoch: int, pool: int) -> np.ndarray:
        first = pool * self.pool_blocks
        return self._block_order(epoch)[first : first + self.pool_blocks]

    def _pool_starts(self, epoch: int) -> np.ndarray:
        """Returns how many rows of the epoch come before each pool."""
        order = self._block_order(epoch)
        starts = order * self.block_rows
        sizes = np.minimum(self.block_rows, self.count - starts)
        before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return before[:: self.pool_blocks]


def shuffled_pools(
    count: int,
    *,
    row_bytes: int,
    seed: int,
    epoch_rows: int,
    start_row: int,
    stop_row: int,
) -> ShuffledPools:
    """Plans a run over `count` rows, with pools of about 64 MiB.

    Args:
        count: number of rows.
        row_bytes: bytes of one.
        seed: determines the order.
        epoch_rows: rows used in an epoch.
        start_row: the first row wanted, counted through all epochs.
        stop_row: the row to stop before, counted likewise.
    """
    pool_rows = max(1, min(count, _POOL_BYTES // row_bytes))
    block_rows = max(1, pool_rows // _BLOCKS_IN_POOL)
    is_one_pool = pool_rows == count
    return ShuffledPools(
        count=count,
        block_rows=block_rows,
        pool_blocks=(
            _divide_up(count, block_rows)
            if is_one_pool
            else pool_rows // block_rows
        ),
        seed=seed,
        epoch_rows=epoch_rows,
        start_row=start_row,
        stop_row=stop_row,
    )


def _divide_up(value: int, by: int) -> int:
    return -(-value // by)
