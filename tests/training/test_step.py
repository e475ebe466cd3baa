"""The pure step: learning, noise, schedules, clipping, averaging."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flam_jax.config import steps_of
from flam_jax.training.sharding import make_mesh
from flam_jax.training.state import learning_rate, make_optimizer
from flam_jax.training.step import init_state, state_maker, state_shapes, stream_key, train_step
from tests.training.stand_in import RestingStage, TinyLoader, TinyStage, tiny_config


def make(**training: Any) -> tuple[Any, Any, Any]:
    config = tiny_config(**training).tokenizer.training
    stage = TinyStage()
    batch = {"frames": jnp.asarray(next(TinyLoader())["frames"])}
    state = init_state(stream_key(0, stage.name, "init"), {}, batch, stage=stage, training=config)
    step = jax.jit(lambda state, batch: train_step(state, {}, batch, stage=stage, training=config, seed=0))
    return state, batch, step


class CountingStage(TinyStage):
    """Counts how often its initial state is traced."""

    inits = 0

    def init(self, key: Any, frozen: Any, batch: Any) -> Any:
        self.inits += 1
        return super().init(key, frozen, batch)


def test_the_states_of_several_runs_are_compiled_once() -> None:
    """As each run's own would be, and different from each other."""
    stage, training, mesh = CountingStage(), tiny_config().tokenizer.training, make_mesh()
    batch = {"frames": jnp.asarray(next(TinyLoader())["frames"])}
    shapes = state_shapes({}, batch, stage=stage, training=training, mesh=mesh)
    before = stage.inits
    make_state = state_maker(shapes, stage=stage, training=training)
    kernels = [np.asarray(make_state({}, batch, seed).params["into"]["kernel"]) for seed in (3, 4, 3)]
    assert stage.inits == before + 1
    alone = init_state(stream_key(3, stage.name, "init"), {}, batch, stage=stage, training=training)
    np.testing.assert_allclose(kernels[0], alone.params["into"]["kernel"], rtol=1e-6)
    assert (kernels[0] == kernels[2]).all()
    assert abs(kernels[0] - kernels[1]).max() > 0.01


def test_a_part_that_is_not_trained_now_stays_as_it_is() -> None:
    """Against momentum and weight decay too."""
    _, batch, _ = make()
    training, stage = tiny_config(num_steps=8, weight_decay=0.1).tokenizer.training, RestingStage()
    state = init_state(jax.random.key(0), {}, batch, stage=stage, training=training)
    step = jax.jit(lambda state: train_step(state, {}, batch, stage=stage, training=training, seed=0)[0])
    for number in range(8):
        new = step(state)
        same = {part: bool((new.params[part]["kernel"] == state.params[part]["kernel"]).all()) for part in new.params}
        assert same == {"into": number >= 4, "out": number < 4}
        state = new


def test_a_part_that_rested_begins_as_if_training_did() -> None:
    """Its first update is as large as the rate says, for each weight; AdamW's averages are corrected from there."""
    _, batch, _ = make()
    changes = dict(num_steps=100, learning_rate=0.01, weight_decay=0.0, schedule="cosine", warmup_steps=3)
    training, stage = tiny_config(**changes).tokenizer.training, RestingStage()
    state = init_state(jax.random.key(0), {}, batch, stage=stage, training=training)
    step = jax.jit(lambda state: train_step(state, {}, batch, stage=stage, training=training, seed=0))
    sizes, rates = [], []
    for _ in range(54):
        new, metrics = step(state)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), new.params, state.params)
        sizes.append({part: leaves["kernel"] for part, leaves in moved.items()})
        rates.append(float(metrics["learning_rate"]))
        state = new
    np.testing.assert_allclose([rates[0], rates[3], rates[50], rates[53]], [0.0025, 0.01, 0.0025, 0.01], rtol=1e-3)
    assert rates[49] < 2e-4  # a schedule of its own, to its end
    np.testing.assert_allclose([sizes[0]["into"], sizes[50]["out"]], 0.0025, rtol=1e-2)


def test_a_span_has_the_steps_whose_progress_lies_in_it() -> None:
    """The loss asks for the progress, in f32, and the optimizer for the step."""
    for num_steps in (7, 10, 2000):
        for share in (0.0, 0.1, 0.25, 0.3, 0.5, 0.6, 0.7, 1.0):
            progress = np.arange(num_steps, dtype=np.float32) / num_steps
            assert steps_of((share, 1.0), num_steps) == (int((progress < np.float32(share)).sum()), num_steps)


def test_the_loss_of_one_batch_falls() -> None:
    state, batch, step = make(num_steps=60)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * losses[0]
    assert int(state.step) == 60
    assert metrics["finite"]


def test_noise_depends_on_seed_stage_and_step_only() -> None:
    keys = [stream_key(seed, stage, stream) for seed in (0, 1) for stage in ("a", "b") for stream in ("init", "loss")]
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(data) == 8
    state, batch, step = make()
    again = [float(step(state, batch)[1]["loss"]) for _ in range(2)]
    assert again[0] == again[1]
    assert float(step(state.replace(step=state.step + 1), batch)[1]["loss"]) != again[0]


def test_a_batch_taken_in_parts_makes_the_same_step() -> None:
    """But for the noise, which is gone in the last step."""
    steps = []
    for parts in (1, 2, 4):
        state, batch, step = make(accumulate=parts)
        new, metrics = step(state.replace(step=jnp.asarray(12)), batch)
        steps.append((new.params, metrics))
    for params, metrics in steps[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params, steps[0][0])
        for name, value in steps[0][1].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


class PreparedStage(TinyStage):
    """Counts how often it prepares a batch of four, and is given two of them at a time."""

    prepared = 0

    def prepare(self, frozen: Any, batch: Any) -> Any:
        self.prepared += 1
        return {"frames": batch["frames"] // 2, "rows": jnp.zeros(len(batch["frames"]))}

    def loss(self, params: Any, frozen: Any, batch: Any, key: Any, progress: Any) -> Any:
        assert frozen["offset"].shape == (3,)
        assert batch["frames"].shape[0] == batch["rows"].shape[0] == 2
        return super().loss(params, frozen, batch, key, progress)


def test_a_batch_is_prepared_once_for_all_parts_and_what_is_frozen_stays_whole() -> None:
    stage, training = PreparedStage(), tiny_config(accumulate=2).tokenizer.training
    state, batch, _ = make()
    _, metrics = train_step(state, {"offset": jnp.zeros(3)}, batch, stage=stage, training=training, seed=0)
    assert stage.prepared == 1
    assert metrics["finite"]


def test_learning_rate() -> None:
    training = tiny_config(num_steps=100, warmup_steps=9, learning_rate=1.0, schedule="cosine").tokenizer.training
    rates = np.asarray(jax.vmap(lambda step: learning_rate(step, training))(jnp.arange(101)))
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert rates[9] == 1.0
    assert (np.diff(rates[9:]) < 0).all()
    np.testing.assert_allclose(rates[9 + 45], 0.5, atol=0.02)
    assert abs(rates[100]) < 1e-6
    training.schedule = "constant"
    assert learning_rate(80, training) == 1.0


def test_clipping_bounds_the_gradient_and_zero_turns_it_off() -> None:
    grads, params = {"kernel": jnp.full((2, 2), 100.0)}, {"kernel": jnp.ones((2, 2))}

    def moment(clip_norm: float) -> float:
        optimizer = make_optimizer(tiny_config(clip_norm=clip_norm).tokenizer.training)
        _, state = optimizer.update(grads, optimizer.init(params), params)
        return float(jnp.abs(optax.tree_utils.tree_get(state, "mu")["kernel"]).max())

    assert moment(1.0) == pytest.approx(0.1 * 0.5)
    assert moment(0.0) == pytest.approx(0.1 * 100)


def test_weight_decay_spares_all_but_kernels() -> None:
    params = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2, 2)), "scale": jnp.ones(2)}}
    optimizer = make_optimizer(tiny_config(weight_decay=0.1).tokenizer.training)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert (updates["a"]["kernel"] < 0).all()
    assert not updates["a"]["bias"].any()
    assert not updates["a"]["scale"].any()


def test_muon_moves_every_kernel_in_all_directions_alike_and_as_far_as_adamw() -> None:
    """Whatever the size and rank of the gradient; the axes of an attention's heads are one."""
    key = jax.random.key(0)
    shapes = {"dense": (12, 8), "query": (12, 2, 4), "out": (2, 4, 12), "conv": (3, 3, 2, 8)}
    params = {name: {"kernel": jnp.ones(shape)} for name, shape in shapes.items()}
    spread = jnp.geomspace(1.0, 30.0, 8)
    grads = jax.tree.map(lambda x: jax.random.normal(key, x.shape).reshape(-1, 8) * spread[None], params)
    grads = jax.tree.map(lambda grad, x: grad.reshape(x.shape), grads, params)
    optimizer = make_optimizer(tiny_config(optimizer="muon", learning_rate=0.1, clip_norm=0.0).tokenizer.training)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    matrices = {"dense": (12, 8), "query": (12, 8), "out": (8, 12), "conv": (18, 8)}
    for name, shape in matrices.items():
        singular = jnp.linalg.svd(updates[name]["kernel"].reshape(shape), compute_uv=False)
        assert singular[0] < 3 * singular[-1], name  # of the gradient: more than 15 times
        assert float(jnp.sqrt(jnp.square(updates[name]["kernel"]).mean())) == pytest.approx(0.1 * 0.2, rel=0.4), name


def test_what_is_no_kernel_is_adamws_with_muon_too() -> None:
    params = {"a": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, "initial_slots": jnp.ones((3, 4))}
    grads = jax.tree.map(lambda x: 0.5 * x, params)
    found = {}
    for name in ("adamw", "muon"):
        optimizer = make_optimizer(tiny_config(optimizer=name, weight_decay=0.1).tokenizer.training)
        found[name], _ = optimizer.update(grads, optimizer.init(params), params)
    assert not np.allclose(found["adamw"]["a"]["kernel"], found["muon"]["a"]["kernel"])
    for path in (("a", "bias"), ("initial_slots",)):
        adamw, muon = (functools.reduce(lambda tree, key: tree[key], path, found[name]) for name in ("adamw", "muon"))
        np.testing.assert_allclose(adamw, muon, rtol=1e-5)


def test_variables_that_cannot_be_trained_are_refused() -> None:
    class WithStatistics(TinyStage):
        def init(self, key: Any, frozen: Any, batch: Any) -> dict[str, Any]:
            return super().init(key, frozen, batch) | {"batch_stats": {}}

    batch = {"frames": jnp.zeros((1, 1, 4, 4, 3), jnp.uint8)}
    with pytest.raises(ValueError, match="batch_stats"):
        init_state(jax.random.key(0), {}, batch, stage=WithStatistics(), training=tiny_config().tokenizer.training)
