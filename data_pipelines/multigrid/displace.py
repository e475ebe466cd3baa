"""The same walks from other places, where everything that happens in them happens again."""

import numpy as np
from jaxtyping import Int, Int8, Int16

from data_pipelines.multigrid.definition import FORWARD

# Column and row that a step forward adds, by direction.
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_TRIES = 30


def displace(
    positions: Int16[np.ndarray, "t n 2"],
    directions: Int8[np.ndarray, "t n"],
    actions: Int8[np.ndarray, "t n"],
    grid_size: int,
    rng: np.random.Generator,
) -> Int16[np.ndarray, "t n 2"]:
    """Shifts every agent's whole path to another place where each of its actions has the same effect.

    Agents that stand in each other's way are shifted together; who walks against a wall, along that wall. An agent for
    which there is no other place stays where it is. So what an agent does, and the frame does not tell from standing
    still (a step that is blocked), is the same in both walks too.

    Args:
      positions: column and row before each action.
      directions: 0 right, 1 down, 2 left, 3 up.
      actions: 0 turn left, 1 turn right, 2 forward.
      grid_size: cells per side, the wall included.
      rng: chooses among the places.

    Returns:
      The shifted positions: of a few tries, those with the most agents that are elsewhere.
    """
    paths = positions.astype(int)
    groups, allowed = _groups_and_shifts(paths, directions, actions, grid_size)
    best, most = paths, 0
    for _ in range(_TRIES):
        found = _place(paths, groups, allowed, rng)
        moved = 0 if found is None else int((found[0] != paths[0]).any(axis=-1).sum())
        if found is not None and moved > most:
            best, most = found, moved
        if most == paths.shape[1]:
            break
    return best.astype(np.int16)


def _groups_and_shifts(
    paths: Int[np.ndarray, "t n 2"], directions: np.ndarray, actions: np.ndarray, grid_size: int
) -> tuple[list[list[int]], list[Int[np.ndarray, "s 2"]]]:
    """Agents that block each other, and the shifts after which a group's members meet the same walls."""
    now, then = paths[:-1], paths[1:]
    tried = actions[:-1] == FORWARD
    ahead = now + _AHEAD[directions[:-1]]
    blocked = tried & (now == then).all(axis=-1)
    at_wall = blocked & ((ahead < 1) | (ahead > grid_size - 2)).any(axis=-1)
    agents = paths.shape[1]
    label = np.arange(agents)
    for time, agent in np.argwhere(blocked & ~at_wall):
        # Who was in the way was there before the step, or was faster.
        there = (now[time] == ahead[time, agent]).all(axis=-1) | (then[time] == ahead[time, agent]).all(axis=-1)
        for other in np.flatnonzero(there):
            label[label == label[other]] = label[agent]
    groups = [np.flatnonzero(label == name).tolist() for name in np.unique(label)]
    span = np.arange(-grid_size, grid_size + 1)
    every = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    allowed = []
    for group in groups:
        low, high = paths[:, group].min(axis=(0, 1)), paths[:, group].max(axis=(0, 1))
        keeps = ((every + low >= 1) & (every + high <= grid_size - 2)).all(axis=-1)
        # Across the direction in which one of them walks against a wall nothing may change.
        walls = _AHEAD[directions[:-1][:, group][at_wall[:, group]]].any(axis=0)
        keeps &= ~(walls & (every != 0)).any(axis=-1)
        allowed.append(every[keeps])
    return groups, allowed


def _place(
    paths: Int[np.ndarray, "t n 2"],
    groups: list[list[int]],
    allowed: list[Int[np.ndarray, "s 2"]],
    rng: np.random.Generator,
) -> Int[np.ndarray, "t n 2"] | None:
    """One try: the groups in random order, each at a random place that is free of those before it, or None."""
    found, placed = paths.copy(), []
    for number in rng.permutation(len(groups)):
        group, shifts = groups[number], rng.permutation(allowed[number])
        shifts = shifts[np.argsort(~shifts.any(axis=-1), kind="stable")]  # where it was comes last
        for shift in shifts:
            here = paths[:, group] + shift
            if not placed or not _in_the_way(here, found[:, placed]):
                found[:, group] = here
                placed += group
                break
        else:
            return None
    return found


def _in_the_way(first: Int[np.ndarray, "t n 2"], second: Int[np.ndarray, "t m 2"]) -> bool:
    """Whether any two want the same cell: at one time, or one where the other has just been."""

    def meet(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((a[:, :, None] == b[:, None]).all(axis=-1).any())

    return meet(first, second) or meet(first[1:], second[:-1]) or meet(first[:-1], second[1:])


__all__ = ["displace"]
