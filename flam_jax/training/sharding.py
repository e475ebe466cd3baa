"""Where arrays live: the device mesh, and rules from parameter paths to shardings."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from flam_jax.axes import Axis, AxisRules
from flam_jax.config import Config

AXES = ("data", "fsdp", "factor")
BATCH_AXES = ("data", "fsdp")

Rule = tuple[str, str]  # (regular expression searched in the path, tactic)
TACTICS = ("replicate", "fsdp")
# Where the axes of activations go (`flam_jax.axes`). Beside the factors, the devices along `factor` share out what else
# there is of an example: the patches that are aggregated, and the frames that the tokenizer handles one by one.
ACTIVATIONS: dict[str | None, tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "image": AXES,
    "factor": ("factor",),
    "patch": ("factor",),
    None: (),
}
# The first rule that matches counts; a parameter that none matches is an error, so that a new kind of parameter gets a
# decision. The paths of optimizer moments and averages end like those of their parameters; `ns_coeffs` is Muon's own.
RULES: tuple[Rule, ...] = (
    (r"(^|/)(bias|age_bias|scale|initial_slots|null|log_reach|question|codes|ns_coeffs)$", "replicate"),
    (r"(^|/)kernel$", "fsdp"),
)


class ShardingError(ValueError):
    """Mesh sizes or sharding rules that do not fit the devices or the parameters."""


def make_mesh(data: int = -1, fsdp: int = 1, factor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `factor`.

    Args:
      data, fsdp, factor: devices along each axis; one of them may be -1 and takes the devices that are left.
      devices: all devices of all processes by default.

    Raises:
      ShardingError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, factor]
    asked = "mesh." + ", mesh.".join(f"{axis} = {size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ShardingError(f"config.{asked}: expected positive sizes, at most one of them -1")
    fixed = math.prod(size for size in sizes if size != -1)
    if len(devices) % fixed or (-1 not in sizes and fixed != len(devices)):
        raise ShardingError(
            f"config.{asked}: the sizes must multiply to the number of devices, which is {len(devices)}"
        )
    shape = tuple(len(devices) // fixed if size == -1 else size for size in sizes)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The leading axis over all devices that see different examples."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def placer(mesh: Mesh | AbstractMesh) -> AxisRules:
    """Spreads activations by `ACTIVATIONS`. An axis that does not divide by its devices is not cut."""

    def place(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
        parts = []
        for size, axis in zip(x.shape, axes, strict=False):
            where = tuple(name for name in ACTIVATIONS[axis] if mesh.shape[name] > 1)
            parts.append(where if where and size % math.prod(mesh.shape[name] for name in where) == 0 else None)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*parts)))

    return place if mesh.size > 1 else lambda x, axes: x


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of a global batch that this process's devices hold, in order.

    Devices lie in a mesh as suits their connections: these need not be neighbours. Processes whose devices differ in
    `factor` alone hold the same rows.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for place in places.values() if place for row in range(batch_size)[place[0]]})


def check_batch_size(training: Config, mesh: Mesh | AbstractMesh, field: str) -> None:
    """Raises ShardingError when a batch, or a part of it, does not divide evenly over the mesh.

    Args:
      training: of a stage.
      mesh: devices.
      field: name of `training` in the message.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if training.batch_size % (parts * training.accumulate):
        times = f" times accumulate = {training.accumulate}" if training.accumulate > 1 else ""
        least = parts * training.accumulate
        larger = -(-training.batch_size // least) * least
        data = math.gcd(training.batch_size // training.accumulate, mesh.size)
        sizes = {"data": data, "fsdp": 1, "factor": mesh.size // data}
        flags = [f"--config.mesh.{axis}={size}" for axis, size in sizes.items() if size > 1 or mesh.shape[axis] > 1]
        raise ShardingError(
            f"config.{field}.batch_size = {training.batch_size}: expected a multiple of mesh.data x mesh.fsdp ="
            f" {parts}{times}; these {mesh.size} devices work with {' '.join(flags)}, or with"
            f" --config.{field}.batch_size={larger}"
        )


def path_name(path: tuple[Any, ...]) -> str:
    """`encoder/Dense_0/kernel` for a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_shardings(tree: Any, mesh: Mesh | AbstractMesh, rules: Sequence[Rule] = RULES) -> Any:
    """A NamedSharding for every leaf of a tree of arrays or shapes, by the first rule that matches its path.

    Tactics: `replicate`; `fsdp` cuts the largest axis that the `fsdp` axis of the mesh divides (the last of equals),
    and replicates where none does. Scalars are always replicated.

    Raises:
      ShardingError: no rule matches a path, or a rule names an unknown tactic.
    """

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return replicated(mesh)
        name = path_name(path)
        tactic = next((tactic for pattern, tactic in rules if re.search(pattern, name)), None)
        if tactic is None:
            raise ShardingError(f"no sharding rule matches the parameter {name} of shape {tuple(leaf.shape)}")
        return NamedSharding(mesh, _spec(leaf.shape, tactic, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def describe(shapes: Any) -> str:
    """A table of arrays with shardings: path, shape, how it is cut, and bytes on one device; the largest first."""
    rows = []
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        cut = [f"axis {axis} over {name}" for axis, name in enumerate(leaf.sharding.spec) if name]
        rows.append((size, path_name(path), "x".join(map(str, leaf.shape)) or "scalar", ", ".join(cut) or "whole"))
        total += size
    rows.sort(key=lambda row: (-row[0], row[1]))
    widths = [max(len(row[column]) for row in rows) for column in (1, 2, 3)]
    lines = [
        f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {cut:<{widths[2]}}  {size:>14,}" for size, name, shape, cut in rows
    ]
    head = f"{'array':<{widths[0]}}  {'shape':>{widths[1]}}  {'sharding':<{widths[2]}}  {'bytes a device':>14}"
    return "\n".join([head, *lines, f"{len(rows)} arrays, {total:,} bytes a device"])


def _spec(shape: tuple[int, ...], tactic: str, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    if tactic == "replicate":
        return PartitionSpec()
    if tactic == "fsdp":
        parts = mesh.shape["fsdp"]
        divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
        if parts == 1 or not divisible:
            return PartitionSpec()
        largest = max(divisible, key=lambda axis: (shape[axis], axis))
        return PartitionSpec(*(("fsdp" if axis == largest else None) for axis in range(len(shape))))
    raise ShardingError(f"unknown sharding tactic {tactic!r}: expected one of {', '.join(TACTICS)}")


__all__ = [
    "ACTIVATIONS",
    "AXES",
    "RULES",
    "Rule",
    "ShardingError",
    "batch_sharding",
    "check_batch_size",
    "describe",
    "local_rows",
    "make_mesh",
    "path_name",
    "placer",
    "replicated",
    "tree_shardings",
]
