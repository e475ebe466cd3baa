"""Are the cells that matter predicted right? Errors of every entity, where a frame is a board of tiles.

PSNR hardly notices a lost agent: 4 agents cover 4 of 64 cells. So every cell that an agent entered, left, turned on or
stayed on between true frame t-1 and true frame t is judged by itself in predicted frame t: the tile that looks most
like the predicted cell (smallest mean squared error, of all tiles in the true frames) is the true tile or not.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from data_pipelines.spec import DatasetSpec
from flam_jax.evaluation.context import EvaluationContext
from flam_jax.evaluation.rollouts import rounded
from flam_jax.metrics import to_psnr
from flam_jax.world_model import WorldModel

KEY = ("cells",)

KINDS = ("entered", "followed", "left", "turned", "stayed")
# 16 agents in 4 directions, walls and floor are 66 tiles; far more means that the frames are no boards of tiles.
MOST_TILES = 1024


def needs(data: DatasetSpec, model: WorldModel) -> str:
    """Boards of tiles on which entities stand and look somewhere."""
    del model
    there = data.tiled and data.cells and data.has("positions", "directions")
    return "" if there else "the frames are no boards of tiles with entities on known cells"


def run(context: EvaluationContext) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of the predicted frames, of their ceiling, and of the last frame repeated."""
    settings, parts = context.settings, context.played.parts
    first = settings.context - 1  # the last true frame before the rollout
    true = context.record["frames"][:, first:]
    where = (context.cells[:, first:], context.record["directions"][:, first:].astype(np.int32))
    frames = {
        "predicted": np.concatenate([part.predicted for part in parts]),
        "ceiling": np.concatenate([part.ceiling for part in parts]),
        "copy_last": np.repeat(true[:, :1], settings.steps, axis=1),
    }
    return {name: cell_errors(shown, true, *where, context.spec.cells) for name, shown in frames.items()}, {}


def split_cells(
    frames: UInt8[np.ndarray, "*b H W 3"], cells: tuple[int, int]
) -> UInt8[np.ndarray, "*b rows columns p q 3"]:
    """Frames as boards of cells."""
    *batch, height, width, _ = frames.shape
    rows, columns = cells
    split = frames.reshape(*batch, rows, height // rows, columns, width // columns, 3)
    return np.moveaxis(split, -4, -3)


def vocabulary(frames: UInt8[np.ndarray, "*b H W 3"], cells: tuple[int, int]) -> UInt8[np.ndarray, "v p q 3"]:
    """All different tiles in true frames, rarest first.

    Raises:
      ValueError: there are too many for a board of tiles.
    """
    split = split_cells(frames, cells)
    tiles = np.ascontiguousarray(split.reshape(-1, *split.shape[-3:]))
    # One opaque item per tile sorts by memory comparison, much faster than np.unique along an axis.
    items = tiles.reshape(len(tiles), -1).view(np.dtype((np.void, tiles[0].size)))[:, 0]
    _, first, counts = np.unique(items, return_index=True, return_counts=True)
    if len(first) > MOST_TILES:
        raise ValueError(f"expected boards of at most {MOST_TILES} different tiles, found {len(first)}")
    return tiles[first[np.argsort(counts, kind="stable")]]


def nearest_tile(cells: UInt8[np.ndarray, "m p q 3"], tiles: UInt8[np.ndarray, "v p q 3"]) -> Int[np.ndarray, " m"]:
    """Number of the tile that each cell looks most like; of equals the rarest one."""
    pixels = cells.reshape(len(cells), -1).astype(np.float32)
    known = tiles.reshape(len(tiles), -1).astype(np.float32)
    distance = np.sum(pixels**2, 1)[:, None] + np.sum(known**2, 1) - 2 * pixels @ known.T
    return np.argmin(distance, axis=1)


def happenings(
    positions: Int[np.ndarray, "b t n 2"], directions: Int[np.ndarray, "b t n"]
) -> dict[str, Bool[np.ndarray, "b t-1 n"]]:
    """What each agent did between two frames, by kind.

    An agent that moves both enters a cell and leaves one; it followed another if that is the cell which that one left.
    """
    moved = np.any(positions[:, 1:] != positions[:, :-1], axis=-1)
    turned = ~moved & (directions[:, 1:] != directions[:, :-1])
    was_of = np.all(positions[:, 1:, :, None] == positions[:, :-1, None], axis=-1)  # b t-1 n n
    followed = moved & np.any(was_of, axis=-1)
    return {"entered": moved, "followed": followed, "left": moved, "turned": turned, "stayed": ~moved & ~turned}


def cell_errors(
    predicted: UInt8[np.ndarray, "b s H W 3"],
    true: UInt8[np.ndarray, "b s+1 H W 3"],
    positions: Int[np.ndarray, "b s+1 n 2"],
    directions: Int[np.ndarray, "b s+1 n"],
    cells: tuple[int, int],
) -> dict[str, Any]:
    """Share of cells predicted wrong, by kind, for each agent and each step.

    Args:
      predicted: imagined frames.
      true: the last context frame and the true frames of the same steps.
      positions: row and column of each agent's cell in the true frames.
      directions: where each agent looks.
      cells: rows and columns of cells.

    Returns:
      For each kind: `wrong` (share over everything), `per_agent`, `per_step`, `count` of cells, `psnr` in decibels of
      their pooled squared error. A share of no cells is None.
    """
    tiles = vocabulary(true, cells)
    clip, step, agent = np.indices((*predicted.shape[:2], positions.shape[2]))
    result = {}
    for kind, happened in happenings(positions, directions).items():
        # A cell is left at its place of the frame before; the others are where the agent is now.
        where = positions[:, :-1] if kind == "left" else positions[:, 1:]
        index = (clip[happened], step[happened], *np.moveaxis(where[happened], -1, 0))
        guess = split_cells(predicted, cells)[index]
        truth = split_cells(true[:, 1:], cells)[index]
        wrong = nearest_tile(guess, tiles) != nearest_tile(truth, tiles) if len(guess) else np.zeros(0, bool)
        error = float(np.mean((guess / 255.0 - truth / 255.0) ** 2)) if len(guess) else None
        result[kind] = {
            "wrong": _share(wrong),
            "per_agent": [_share(wrong[agent[happened] == n]) for n in range(positions.shape[2])],
            "per_step": [_share(wrong[step[happened] == s]) for s in range(predicted.shape[1])],
            "count": len(wrong),
            "psnr": None if error is None else rounded(to_psnr(jnp.float32(error))),
        }
    return result


def _share(wrong: Bool[np.ndarray, " m"]) -> float | None:
    return rounded(wrong.mean()) if len(wrong) else None


__all__ = ["KEY", "KINDS", "cell_errors", "happenings", "nearest_tile", "needs", "run", "split_cells", "vocabulary"]
