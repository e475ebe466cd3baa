"""One update as a pure function, and its compilation for a mesh."""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from flam_jax.axes import logical_axis_rules
from flam_jax.config import Config
from flam_jax.schema import steps_of
from flam_jax.training.flops import count_flops
from flam_jax.training.sharding import RULES, Rule, placer, replicated, tree_shardings
from flam_jax.training.stage import Batch, Stage
from flam_jax.training.state import WHOLE, Span, TrainState, learning_rate, make_optimizer, new_state

# The values whose finiteness is watched; finite parameters follow from a finite norm.
WATCHED = ("loss", "grad_norm", "param_norm")


def stream_key(seed: int | jax.Array, stage: str, stream: str) -> jax.Array:
    """The random key of one named stream of one stage; fold in the step where there is one."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{stage}/{stream}".encode()))


def init_state(key: jax.Array, batch: Batch, *, stage: Stage, training: Config) -> TrainState:
    """The state of step 0.

    Raises:
      ValueError: the stage has variables other than `params`.
    """
    variables = dict(stage.init(key, batch))
    params = variables.pop("params")
    if variables:
        raise ValueError(f"stage {stage.name}: only params can be trained, but init made {sorted(variables)}")
    return new_state(params, make_optimizer(training, spans(params, stage)), ema=training.ema_decay > 0)


def train_step(
    state: TrainState, batch: Batch, *, stage: Stage, training: Config, seed: int | jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: gradients of `stage.loss`, clipping, AdamW, moving average.

    Args:
      state: parameters, optimizer state and step.
      batch: arrays whose leading axis is the global batch, and what the stage keeps frozen.
      stage, training: static.
      seed: the noise of a step depends on it, the stage's name and the step only.

    Returns:
      The next state, and f32 scalars: the stage's own metrics, `loss`, `grad_norm` (before clipping), `param_norm`,
      `learning_rate`, and the bool `finite`. Where that is false the state is as it was, but for its step, when
      `training.on_nonfinite` says so.
    """
    key = jax.random.fold_in(stream_key(seed, stage.name, "loss"), state.step)
    progress = state.step.astype(jnp.float32) / training.num_steps

    loss, metrics, grads = _gradients(state.params, batch, key, progress, stage=stage, parts=training.accumulate)
    when = spans(state.params, stage)
    updates, opt_state = make_optimizer(training, when).update(grads, state.opt_state, state.params, at=state.step)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_params is not None:
        decay = training.ema_decay
        ema_params = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema_params, params)

    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()} | {
        "loss": loss.astype(jnp.float32),
        "grad_norm": _norm(grads),
        "param_norm": _norm(params),
        "learning_rate": _current_rate(state.step, training, set(when.values())),
    }
    metrics["finite"] = jnp.isfinite(jnp.stack([metrics[name] for name in WATCHED])).all()
    new = TrainState(step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params)
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


def spans(params: Any, stage: Stage) -> dict[str, Span]:
    """When the stage trains the parts of the parameters, by their first names."""
    of = getattr(stage, "span", lambda part: WHOLE)
    return {part: of(part) for part in params}


def _gradients(
    params: Any, batch: Batch, key: jax.Array, progress: jax.Array, *, stage: Stage, parts: int
) -> tuple[jax.Array, Mapping[str, jax.Array], Any]:
    """Loss, metrics and gradients of a batch: means over `parts` of it, taken one after the other."""
    differentiate = jax.value_and_grad(stage.loss, has_aux=True)
    if parts == 1:
        (loss, metrics), grads = differentiate(params, batch, key, progress)
        return loss, metrics, grads
    # Done before the loop: XLA runs convolutions within one ten times slower on a CPU.
    batch = dict(getattr(stage, "prepare", dict)(batch))
    whole = {name: batch.pop(name) for name in ("frozen",) if name in batch}

    def split(leaf: jax.Array) -> jax.Array:
        # Every part has rows of every device.
        return jnp.moveaxis(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 1, 0)

    def add(total: Any, one: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, part = one
        values = differentiate(params, {**part, **whole}, jax.random.fold_in(key, number), progress)
        return jax.tree.map(jnp.add, total, values), None

    pieces = (jnp.arange(parts), jax.tree.map(split, batch))
    first = jax.tree.map(lambda leaf: leaf[0], pieces)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda piece: differentiate(params, {**piece[1], **whole}, key, progress), first),
    )
    total, _ = jax.lax.scan(add, zeros, pieces)
    (loss, metrics), grads = jax.tree.map(lambda leaf: leaf / parts, total)
    return loss, metrics, grads


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A step compiled for one mesh and batch shape, with what the compiler says of it."""

    # States and batches of runs that are trained together, to their next states and metrics.
    run: Callable[
        [tuple[TrainState, ...], tuple[Batch, ...]], tuple[tuple[TrainState, ...], tuple[dict[str, jax.Array], ...]]
    ]
    flops: int  # of all devices together: matrix products and convolutions, loops as often as they run
    bytes: int | None  # memory of one device: arguments, results and temporaries


def state_shapes(
    batch: Mapping[str, Any],
    *,
    stage: Stage,
    training: Config,
    mesh: Mesh,
    rules: tuple[Rule, ...] = RULES,
) -> TrainState:
    """Shapes and shardings of the state, without making an array; `batch` holds shapes too.

    Raises:
      ShardingError: a parameter that no rule matches.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda k, b: init_state(k, b, stage=stage, training=training), key, batch)
    shardings = tree_shardings(shapes, mesh, rules)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )


def state_maker(shapes: TrainState, *, stage: Stage, training: Config) -> Callable[[Batch, int], TrainState]:
    """Makes initial states from a batch and a seed, each where it will live: no device ever holds all of it.

    What it returns is compiled at its first call, and serves all runs that are trained together.
    """
    init = jax.jit(
        lambda key, batch: init_state(key, batch, stage=stage, training=training),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes),
    )
    return lambda batch, seed: init(stream_key(seed, stage.name, "init"), batch)


def compile_step(
    shapes: TrainState,
    batch: Mapping[str, Any],
    *,
    stage: Stage,
    training: Config,
    seeds: Sequence[int],
    mesh: Mesh,
) -> CompiledStep:
    """Compiles `train_step` for shapes with shardings; the states' buffers are donated.

    Args:
      shapes: of the state of one run.
      batch: shapes of its batch.
      stage, training: of all runs.
      seeds: of the runs. Several are one program, vmapped over the runs; what is frozen is the first one's.
      mesh: devices.
    """
    number = len(seeds)
    shardings = (jax.tree.map(lambda leaf: leaf.sharding, shapes),) * number
    batch_shardings = (jax.tree.map(lambda leaf: leaf.sharding, dict(batch)),) * number

    def one(state: TrainState, batch: Batch, seed: int | jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        return train_step(state, batch, stage=stage, training=training, seed=seed)

    def step(states: tuple[TrainState, ...], batches: tuple[Batch, ...]) -> Any:
        if number == 1:
            state, metrics = one(states[0], batches[0], seeds[0])
            return (state,), (metrics,)
        frozen = {name: value for name, value in batches[0].items() if name == "frozen"}
        moving = [{name: value for name, value in batch.items() if name not in frozen} for batch in batches]
        stacked = jax.vmap(lambda state, batch, seed: one(state, {**batch, **frozen}, seed))(
            _stack(states), _stack(moving), jnp.asarray(seeds, jnp.uint32)
        )
        states, metrics = (_unstack(tree, number) for tree in stacked)
        return states, metrics

    jitted = jax.jit(
        step,
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnames="states",
    )
    with logical_axis_rules(placer(mesh)):
        traced = jitted.trace((shapes,) * number, (dict(batch),) * number)
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


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstack(tree: Any, number: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(number))
