"""MultiGrid's fields of the configuration and its specification."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.fields import Problem, whole
from data_pipelines.spec import Annotation, DatasetSpec, Definition

LEFT, RIGHT, FORWARD = range(3)
NUM_ACTIONS, NUM_DIRECTIONS = 3, 4

FIELDS = dict(
    grid_size=whole(8, "cells per side of the square grid, the outer wall included", 4, 64),
    num_agents=whole(4, "agents", 1, 16),
    shared_actions=whole(0, "the first n agents always take the same action; 0: all independent"),
)


def _spec(data: Any) -> DatasetSpec:
    fields, (height, width) = data.multigrid, data.frame_size
    agents = fields.num_agents
    shared = f", {fields.shared_actions} alike" if fields.shared_actions else ""
    return DatasetSpec(
        label=f"multigrid {agents} agents{shared}",
        height=height,
        width=width,
        annotations={
            "actions": Annotation((agents,), np.int8, "0 turn left, 1 turn right, 2 forward", classes=NUM_ACTIONS),
            "positions": Annotation((agents, 2), np.int16, "column and row of every agent's cell", unit="cells"),
            "directions": Annotation((agents,), np.int8, "where every agent looks", classes=NUM_DIRECTIONS),
        },
        cells=(fields.grid_size, fields.grid_size),
        tiled=True,
        forward_action=FORWARD,
        displaced_clips=True,
    )


def _variant(data: Any) -> dict[str, Any]:
    fields = data.multigrid
    return {"grid": fields.grid_size, "agents": fields.num_agents, "shared": fields.shared_actions}


def _problems(data: Any) -> Iterator[Problem]:
    fields, (height, width) = data.multigrid, data.frame_size
    cells, agents, shared = fields.grid_size, fields.num_agents, fields.shared_actions
    if height != width:
        yield "frame_size", data.frame_size, "a square: the grid is one"
    if height % cells:
        yield "frame_size", data.frame_size, f"a multiple of data.multigrid.grid_size = {cells}"
    room = (cells - 2) ** 2 // 2
    if agents > room:
        yield "multigrid.num_agents", agents, f"at most {room}, half of the cells inside the wall"
    if shared == 1 or shared > agents:
        yield "multigrid.shared_actions", shared, f"0, or from 2 to num_agents = {agents}"


DEFINITION = Definition(
    fields=FIELDS,
    spec=_spec,
    variant=_variant,
    builder="data_pipelines.multigrid.builder:Multigrid",
    problems=_problems,
    extra="multigrid",
)
