"""One update as a pure function, and its compilation for a mesh."""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from flam_jax.axes import logical_axis_rules
from flam_jax.config import Config, steps_of
from flam_jax.training.flops import count_flops
from flam_jax.training.sharding import RULES, Rule, placer, replicated, tree_shardings
from flam_jax.training.stage import Batch, Frozen, Stage
from flam_jax.training.state import Span, TrainState, learning_rate, make_optimizer, new_state

# The values whose finiteness is watched; finite parameters follow from a finite norm.
WATCHED = ("loss", "grad_norm", "param_norm")


def stream_key(seed: int | jax.Array, stage: str, stream: str) -> jax.Array:
    """The random key of one named stream of one stage; fold in the step where there is one."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{stage}/{stream}".encode()))


def init_state(key: PRNGKeyArray, frozen: Frozen, batch: Batch, *, stage: Stage, training: Config) -> TrainState:
    """The state of step 0.

    Args:
      key: of the stream `init`.
      frozen: parameters of earlier stages.
      batch: arrays as the loader gives them; only their shapes and types matter to most models.
      stage, training: static.

    Raises:
      ValueError: the stage has variables other than `params`.
    """
    variables = dict(stage.init(key, frozen, batch))
    params = variables.pop("params")
    if variables:
        raise ValueError(f"stage {stage.name}: only params can be trained, but init made {sorted(variables)}")
    return new_state(params, make_optimizer(training, spans(params, stage)))


def train_step(
    state: TrainState, frozen: Frozen, batch: Batch, *, stage: Stage, training: Config, seed: int | jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: gradients of `stage.loss`, clipping, AdamW.

    Args:
      state: parameters, optimizer state and step.
      frozen: parameters of earlier stages, which the loss reads.
      batch: arrays whose leading axis is the global batch.
      stage, training: static.
      seed: the noise of a step depends on it, the stage's name and the step only.

    Returns:
      The next state, and f32 scalars: the stage's own metrics, `loss`, `grad_norm` (before clipping), `param_norm`,
      `learning_rate`, and the bool `finite`. Where that is false and `training.on_nonfinite` is "skip", only the step
      of the state changes.
    """
    key = jax.random.fold_in(stream_key(seed, stage.name, "loss"), state.step)
    progress = state.step.astype(jnp.float32) / training.num_steps

    loss, metrics, grads = _gradients(
        state.params, frozen, batch, key, progress, stage=stage, parts=training.accumulate
    )
    when = spans(state.params, stage)
    updates, opt_state = make_optimizer(training, when).update(grads, state.opt_state, state.params, at=state.step)
    params = optax.apply_updates(state.params, updates)

    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()} | {
        "loss": loss.astype(jnp.float32),
        "grad_norm": _norm(grads),
        "param_norm": _norm(params),
        "learning_rate": _current_rate(state.step, training, set(when.values())),
    }
    metrics["finite"] = jnp.isfinite(jnp.stack([metrics[name] for name in WATCHED])).all()
    new = TrainState(step=state.step + 1, params=params, opt_state=opt_state)
    if training.on_nonfinite == "skip":
        kept = dataclasses.replace(state, step=new.step)
        new = jax.tree.map(lambda updated, old: jnp.where(metrics["finite"], updated, old), new, kept)
    return new, metrics


def _current_rate(step: jax.Array, training: Config, when: Iterable[Span]) -> jax.Array:
    """The learning rate of what is trained at a step; the highest where spans overlap."""
    rate = jnp.zeros(())
    for span in when:
        first, last = steps_of(span, training.num_steps)
        now = (step >= first) & (step < last)
        rate = jnp.maximum(rate, jnp.where(now, learning_rate(step, training, span), 0.0))
    return rate


def spans(params: Mapping[str, PyTree], stage: Stage) -> dict[str, Span]:
    """When the stage trains the parts of the parameters, by their first names."""
    return {part: stage.span(part) for part in params}


def _gradients(
    params: PyTree,
    frozen: Frozen,
    batch: Batch,
    key: PRNGKeyArray,
    progress: Float[Array, ""],
    *,
    stage: Stage,
    parts: int,
) -> tuple[jax.Array, Mapping[str, jax.Array], PyTree]:
    """Loss, metrics and gradients of a batch: means over `parts` of it, taken one after the other."""
    differentiate = jax.value_and_grad(stage.loss, has_aux=True)
    if parts == 1:
        (loss, metrics), grads = differentiate(params, frozen, batch, key, progress)
        return loss, metrics, grads
    # Done before the loop: XLA runs convolutions within one ten times slower on a CPU.
    batch = dict(stage.prepare(frozen, batch))

    def split(leaf: jax.Array) -> jax.Array:
        # Every part has rows of every device.
        return jnp.moveaxis(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 1, 0)

    def add(total: Any, one: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, part = one
        values = differentiate(params, frozen, part, jax.random.fold_in(key, number), progress)
        return jax.tree.map(jnp.add, total, values), None

    pieces = (jnp.arange(parts), jax.tree.map(split, batch))
    first = jax.tree.map(lambda leaf: leaf[0], pieces)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda piece: differentiate(params, frozen, piece[1], key, progress), first),
    )
    total, _ = jax.lax.scan(add, zeros, pieces)
    (loss, metrics), grads = jax.tree.map(lambda leaf: leaf / parts, total)
    return loss, metrics, grads


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for one mesh and the shapes of its arguments, with the compiler's figures.

    Attributes:
      run: `(state, frozen, batch) -> (state, metrics)`; the state's buffers are donated.
      flops: of all devices together: matrix products and convolutions, loops as often as they run.
      bytes: memory of one device: arguments, results and temporaries. None where the compiler does not report it.
    """

    run: Callable[[Any, Frozen, Any], tuple[Any, Any]]
    flops: int
    bytes: int | None


def state_shapes(
    frozen: Frozen,
    batch: Batch,
    *,
    stage: Stage,
    training: Config,
    mesh: Mesh,
    rules: tuple[Rule, ...] = RULES,
) -> TrainState:
    """Shapes and shardings of the state, without making an array; `frozen` and `batch` may hold shapes too.

    Raises:
      ShardingError: a parameter that no rule matches.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda k, f, b: init_state(k, f, b, stage=stage, training=training), key, frozen, batch)
    shardings = tree_shardings(shapes, mesh, rules)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )


def state_maker(shapes: TrainState, *, stage: Stage, training: Config) -> Callable[[Frozen, Batch, int], TrainState]:
    """Makes initial states from a batch and a seed, each where it will live: no device ever holds all of it.

    What it returns is compiled at its first call, and serves all runs that are trained together.
    """
    init = jax.jit(
        lambda key, frozen, batch: init_state(key, frozen, batch, stage=stage, training=training),
        out_shardings=_shardings(shapes),
    )
    return lambda frozen, batch, seed: init(stream_key(seed, stage.name, "init"), frozen, batch)


def compile_step(
    step: Callable[[Any, Frozen, Any], tuple[Any, Any]], state: Any, frozen: Frozen, batch: Any, *, mesh: Mesh
) -> CompiledStep:
    """Compiles a step for arguments with shardings; the state's buffers are donated.

    Args:
      step: `train_step` or `together.train_steps` with its keywords bound.
      state, frozen, batch: its arguments, as arrays or as shapes with shardings.
      mesh: devices; the metrics are on all of them.
    """
    jitted = jax.jit(
        step,
        in_shardings=(_shardings(state), _shardings(frozen), _shardings(batch)),
        out_shardings=(_shardings(state), replicated(mesh)),
        donate_argnums=0,
    )
    with logical_axis_rules(placer(mesh)):
        traced = jitted.trace(state, frozen, batch)
        lowered = traced.lower()
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    return CompiledStep(
        run=compiled,
        flops=count_flops(traced.jaxpr),
        bytes=memory
        and memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
    )


def _shardings(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)
