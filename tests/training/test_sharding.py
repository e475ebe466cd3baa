"""Meshes and rules; the run on four simulated devices stands in `run_sharded.py`."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from flam_jax.build import build_dynamics, build_tokenizer
from flam_jax.config import Config, default_config, load_config
from flam_jax.training import sharding
from flam_jax.training.sharding import ShardingError, make_mesh, tree_shardings

FOUR = AbstractMesh((1, 4, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    "sizes", [dict(data=3), dict(data=-1, fsdp=-1), dict(data=0), dict(data=-2), dict(data=-1, fsdp=7)]
)
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, int]) -> None:
    with pytest.raises(ShardingError, match=r"^config\.mesh\.data = .*config|^config\.mesh\.data = "):
        make_mesh(**sizes)


def training(batch_size: int, accumulate: int = 1) -> Config:
    config = default_config().dynamics.training
    config.update(batch_size=batch_size, accumulate=accumulate)
    return config


def test_the_batch_must_divide() -> None:
    with pytest.raises(ShardingError, match=r"config\.x\.batch_size = 6: expected a multiple of .* = 4"):
        sharding.check_batch_size(training(6), FOUR, "x")
    with pytest.raises(ShardingError, match=r"batch_size = 8: expected a multiple of .* = 4 times accumulate = 4"):
        sharding.check_batch_size(training(8, accumulate=4), FOUR, "x")
    sharding.check_batch_size(training(16, accumulate=4), FOUR, "x")


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2)])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 1), (2, 2), (3, 1), (12, 2), (1, 1)])
def test_a_batch_that_does_not_divide_is_told_two_ways_out(
    sizes: tuple[int, int, int], batch_size: int, accumulate: int
) -> None:
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
    with pytest.raises(ShardingError) as caught:
        sharding.check_batch_size(training(batch_size, accumulate), mesh, "dynamics.training")
    flags = dict(re.findall(r"--config\.([\w.]+)=(\d+)", str(caught.value)))
    larger = int(flags.pop("dynamics.training.batch_size"))
    sharding.check_batch_size(training(larger, accumulate), mesh, "dynamics.training")
    assert larger < batch_size + accumulate * 8
    default = load_config("multigrid", "debug").mesh.to_dict()
    default |= {axis: size for axis, size in zip(sharding.AXES, sizes, strict=True) if axis != "data"}
    changed = default | {name.removeprefix("mesh."): int(size) for name, size in flags.items()}
    others = math.prod(size for size in changed.values() if size != -1)
    found = [8 // others if size == -1 else size for size in changed.values()]
    assert math.prod(found) == mesh.size
    other_mesh = AbstractMesh(tuple(found), tuple(changed), axis_types=(AxisType.Auto,) * 3)
    sharding.check_batch_size(training(batch_size, accumulate), other_mesh, "dynamics.training")


def test_tactics() -> None:
    shapes = {
        "a": {"kernel": jnp.zeros((3, 8, 4)), "bias": jnp.zeros((8,))},
        "odd": {"kernel": jnp.zeros((3, 5))},
        "square": {"kernel": jnp.zeros((4, 4))},
        "count": jnp.zeros(()),
    }
    specs = jax.tree.map(lambda s: s.spec, tree_shardings(shapes, FOUR))
    assert specs["a"] == {"kernel": P(None, "fsdp", None), "bias": P()}
    assert specs["odd"]["kernel"] == P()
    assert specs["square"]["kernel"] == P(None, "fsdp")
    assert specs["count"] == P()


def test_the_table_says_how_each_array_is_cut_and_what_it_takes() -> None:
    shapes = {"a": {"kernel": jnp.zeros((3, 8, 4)), "bias": jnp.zeros((8,))}, "count": jnp.zeros((), jnp.int32)}
    with_shardings = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        tree_shardings(shapes, FOUR),
    )
    head, *rows, last = sharding.describe(with_shardings).splitlines()
    assert head.split() == ["array", "shape", "sharding", "bytes", "a", "device"]
    assert [row.split() for row in rows] == [
        ["a/kernel", "3x8x4", "axis", "1", "over", "fsdp", "96"],
        ["a/bias", "8", "whole", "32"],
        ["count", "scalar", "whole", "4"],
    ]
    assert last == "3 arrays, 132 bytes a device"


def test_activations_are_cut_by_the_names_of_their_axes_where_they_divide() -> None:
    mesh = AbstractMesh((2, 1, 4), sharding.AXES, axis_types=(AxisType.Auto,) * 3)

    def spec(shape: tuple[int, ...], *axes: Any) -> P:
        (equation,) = jax.make_jaxpr(lambda x: sharding.placer(mesh)(x, axes))(jnp.zeros(shape)).eqns
        return equation.params["sharding"].spec

    assert spec((4, 3, 8, 5), "batch", None, "factor") == P(("data",), None, ("factor",))
    assert spec((4, 3, 6, 5), "batch", None, "factor") == P(("data",), None, None)
    assert spec((8, 5), "image") == P(("data", "factor"))
    assert spec((3, 5), "batch") == P(None)


def test_a_parameter_without_rule_and_an_unknown_tactic_are_errors() -> None:
    with pytest.raises(ShardingError, match=r"no sharding rule matches the parameter a/gadget of shape \(2,\)"):
        tree_shardings({"a": {"gadget": jnp.zeros(2)}}, FOUR)
    with pytest.raises(ShardingError, match="unknown sharding tactic 'magic'"):
        tree_shardings({"kernel": jnp.zeros(2)}, FOUR, rules=((".*", "magic"),))


@pytest.mark.parametrize("encoder", ["impala", "patch"])
@pytest.mark.parametrize("decoder", ["cnn", "patch"])
def test_the_rules_cover_the_tokenizers(encoder: str, decoder: str) -> None:
    config = default_config()
    config.tokenizer.update(encoder=encoder, decoder=decoder)
    frames = jnp.zeros((1, 128, 128, 3))
    shapes = jax.eval_shape(build_tokenizer(config).init, jax.random.key(0), frames)
    shardings = jax.tree.leaves(tree_shardings(shapes, FOUR))
    assert len(shardings) == len(jax.tree.leaves(shapes))
    assert any(where.spec != P() for where in shardings)


def test_the_rules_cover_the_dynamics_and_cut_what_is_large() -> None:
    module, key = build_dynamics(default_config()), jax.random.key(0)
    shapes = jax.eval_shape(module.init, {"params": key, "action": key}, jnp.zeros((1, 2, 16, 16, 5)))
    shardings = tree_shardings(shapes, FOUR)
    leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True))
    whole = sum(np.prod(shape.shape) for shape, where in leaves if where.spec == P())
    total = sum(np.prod(shape.shape) for shape, _ in leaves)
    assert whole < 0.02 * total


def test_four_devices_equal_one(tmp_path: Path) -> None:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    script = Path(__file__).with_name("run_sharded.py")
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout.splitlines()[-1])
    assert runs["specs"] == {"one": "1 device", "data": "1 device", "mixed": "4 devices"}
    for name in ("data", "mixed"):
        np.testing.assert_allclose(runs["losses"][name], runs["losses"]["one"], rtol=1e-5)
    assert runs["restored_equal"]
