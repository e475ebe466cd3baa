"""The two stages on a few frames: schedules, health measures and the same losses from frames and from codes."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.config import default_config
from flam_jax.training.health import action_leak, centroids, code_use, health_warnings
from flam_jax.training.stage import Stage
from flam_jax.training.stages import STAGES, find_stage, frozen_shapes
from flam_jax.training.stages.dynamics import DynamicsStage
from flam_jax.training.stages.tokenizer import TokenizerStage
from flam_jax.training.step import init_state, train_step
from tests.tiny import BoardDataset

MODELS = ("flam", "genie", "action_conditioned", "playslot")


class FakeData:
    """Three splits of the same few random clips."""

    def __init__(self, clips: int = 6, length: int = 16, size: int = 16):
        generator = np.random.default_rng(0)
        self.records = [{"frames": generator.integers(0, 256, (length, size, size, 3), np.uint8)} for _ in range(clips)]

    def split(self, name: str) -> Any:
        return self.records


def small_config() -> Any:
    config = default_config()
    config.data.update(frame_size=(16, 16), clip_length=16)
    config.data.multigrid.update(grid_size=4, num_agents=2)
    config.tokenizer.update(encoder="patch", decoder="patch", channels=8, num_res_blocks=1)
    config.dynamics.update(
        model_dim=8, num_heads=2, num_blocks=1, num_factors=2, total_action_dim=4, prediction_steps=2
    )
    config.tokenizer.training.update(batch_size=2, window=2)
    config.dynamics.training.update(batch_size=2, window=3)
    return config


@pytest.fixture(scope="module")
def tokenizer_params() -> Any:
    config = small_config()
    stage = TokenizerStage(config, FakeData(), {})
    batch = {"frames": next(stage.make_loader())["frames"]}
    return jax.jit(stage.init)(jax.random.key(0), {}, batch)["params"]


@pytest.mark.parametrize("levels", [(4, 4, 4, 4, 4), (16, 16, 16, 8, 8)])
def test_codes_give_the_losses_of_frames(tokenizer_params: Any, levels: tuple[int, ...]) -> None:
    """Also where two bytes cannot number them."""
    losses = []
    for cached in (False, True):
        config = small_config()
        config.tokenizer.levels = levels
        config.dynamics.update(cache_codes=cached, prediction_steps=1)
        stage = DynamicsStage(config, FakeData(), {"tokenizer": tokenizer_params})
        loaded = next(stage.make_loader())
        batch = {name: loaded[name] for name in ("frames", "codes") if name in loaded}
        assert ("codes" in batch) == cached
        params = jax.jit(stage.init)(jax.random.key(0), stage.frozen, batch)["params"]
        losses.append(float(jax.jit(stage.loss)(params, stage.frozen, batch, jax.random.key(1), jnp.float32(0.3))[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_stage_anneals_as_its_fields_say(tokenizer_params: Any) -> None:
    config = small_config()
    config.dynamics.update(kl_weight=1e-4, kl_weight_final=1e-2, kl_anneal_start=0.5)
    config.dynamics.update(inverse_temperature=4.0, inverse_temperature_start=0.125, slot_anneal_end=0.5)
    stage = DynamicsStage(config, FakeData(), {"tokenizer": tokenizer_params})
    assert [float(stage.kl_weight(progress)) for progress in (0.5, 0.75)] == pytest.approx([1e-4, 1e-3])
    temperatures = [stage.annealing(progress, jax.random.key(0), 999).inverse_temperature for progress in (0.0, 0.5)]
    assert [float(jnp.median(temperature)) for temperature in temperatures] == pytest.approx([0.5, 4.0], rel=0.1)


def test_slots_that_are_learned_apart_compete_and_change_until_they_are_frozen_and_no_longer(
    tokenizer_params: Any,
) -> None:
    """Neither momentum nor weight decay moves what is frozen."""
    config = small_config()
    config.dynamics.update(name="playslot", slot_anneal_end=0.5, prediction_steps=1)
    config.dynamics.training.update(num_steps=6, weight_decay=0.1, window=2)
    stage = DynamicsStage(config, FakeData(), {"tokenizer": tokenizer_params})
    noisy = [float(stage.annealing(p, jax.random.key(0), 99).inverse_temperature.std()) > 0 for p in (0.24, 0.25)]
    assert noisy == [True, False]
    batch = {"frames": next(stage.make_loader())["frames"]}
    training = config.dynamics.training
    first = jax.jit(functools.partial(init_state, stage=stage, training=training))
    state = first(jax.random.key(0), stage.frozen, batch)
    step = jax.jit(lambda state: train_step(state, stage.frozen, batch, stage=stage, training=training, seed=0)[0])
    for number in range(6):
        new = step(state)
        same = jax.tree.map(np.array_equal, new.params, state.params)
        for part, leaves in same.items():
            rests = (number < 3) != (part in ("factorizer", "decoder"))
            assert jax.tree.all(leaves) if rests else not jax.tree.all(leaves), (number, part)
        state = new


def test_evaluation_is_repeatable_and_complete(tokenizer_params: Any) -> None:
    config = small_config()
    stage = DynamicsStage(config, FakeData(), {"tokenizer": tokenizer_params})
    batch = {"frames": next(stage.make_loader())["frames"]}
    variables = jax.jit(stage.init)(jax.random.key(0), stage.frozen, batch)
    first, pictures = stage.evaluate(variables, 1, 0.5)
    again, _ = stage.evaluate(variables, 2, 0.5)
    assert first == again
    names = {name.removeprefix("validation/") for name in first}
    assert {"loss", "kl", "kl_factor/0", "share_factor/1", "active_units", "attention_entropy", "shuffle_gain"} <= names
    assert sum(first[f"validation/share_factor/{i}"] for i in range(2)) == pytest.approx(1.0, abs=1e-5)
    assert sum(first[f"validation/kl_factor/{i}"] for i in range(2)) == pytest.approx(first["validation/kl"], rel=1e-4)
    assert set(pictures) == {f"{kind}_{clip}" for kind in ("rollout", "factors") for clip in range(2)}
    assert all(picture.ndim == 3 and picture.std() > 0 for picture in pictures.values())


def test_how_a_codebook_is_used_is_logged(tokenizer_params: Any) -> None:
    config = small_config()
    config.dynamics.update(name="genie", codebook_size=4)
    stage = DynamicsStage(config, FakeData(), {"tokenizer": tokenizer_params})
    batch = {"frames": next(stage.make_loader())["frames"]}
    values, _ = stage.evaluate(jax.jit(stage.init)(jax.random.key(0), stage.frozen, batch), 1, 0.5)
    used, perplexity = (values[f"validation/action_code{name}"] for name in ("s_used", "_perplexity"))
    assert 1 <= used <= 4
    assert 1 - 1e-6 <= perplexity <= used + 1e-6


def test_centroids() -> None:
    attention = jnp.zeros((1, 1, 2, 3, 4)).at[0, 0, 0, 2, 1].set(1.0).at[0, 0, 1].set(0.5)
    np.testing.assert_allclose(centroids(attention)[0, 0], [[2.0, 1.0], [1.0, 1.5]], rtol=1e-6)


def test_the_leak_of_actions_that_carry_all_positions_or_none() -> None:
    generator = np.random.default_rng(0)
    positions = [generator.normal(size=(40, 3, 2, 2)).astype(np.float32)]
    telling = [positions[0] @ generator.normal(size=(2, 4)).astype(np.float32)]
    silent = [generator.normal(size=(40, 3, 2, 4)).astype(np.float32)]
    assert action_leak(telling, positions) > 0.99
    assert action_leak(silent, positions) < 0.1
    assert math.isnan(action_leak([telling[0][:2]], [positions[0][:2]]))
    assert math.isnan(action_leak([telling[0][..., :0]], positions))  # a model without actions
    assert math.isnan(action_leak(telling, [np.ones_like(positions[0])]))  # a slot that never moves


def test_the_use_of_a_codebook_is_counted_over_all_batches() -> None:
    once, again = np.zeros((2, 3, 1), np.int32), np.full((2, 3, 1), 7, np.int32)
    assert code_use([once, once]) == {"action_codes_used": 1.0, "action_code_perplexity": 1.0}
    found = code_use([once, again])
    assert found["action_codes_used"] == 2.0
    assert found["action_code_perplexity"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"kl": 0.01}, "collapsed"),
        ({"kl": 0.0, "units": 0.0, "active_units": 0.0, "shuffle_gain": 0.0}, None),  # a model without actions
        ({"active_units": 0.0}, "no unit"),
        ({"active_units": 0.0, "action_codes_used": 1.0}, "one code of the codebook"),
        ({"shuffle_gain": 0.001}, "hardly depends on the actions"),
        ({"attention_entropy": 0.95}, "do not compete"),
        ({"share_factor/0": 0.99, "share_factor/1": 0.01}, "one slot takes all"),
        ({"action_leak": 0.9}, "carry positions"),
    ],
)
def test_warnings_name_the_remedy(change: dict[str, float], expected: str | None) -> None:
    healthy = {"kl": 5.0, "active_units": 4.0, "units": 8.0, "shuffle_gain": 1.0, "attention_entropy": 0.2}
    healthy |= {"share_factor/0": 0.5, "share_factor/1": 0.5, "action_leak": 0.1}
    found = health_warnings({f"validation/{name}": value for name, value in (healthy | change).items()})
    assert len(found) == (expected is not None)
    assert expected is None or (expected in found[0] and "dynamics." in found[0])
    assert health_warnings({"loss": 1.0}) == []


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_of_true_actions_predicts_from_them(tokenizer_params: Any, cached: bool) -> None:
    config = small_config()
    config.dynamics.update(name="action_conditioned", cache_codes=cached)
    config.evaluation.update(context=3, steps=4)
    stage = DynamicsStage(config, BoardDataset(), {"tokenizer": tokenizer_params})
    loaded = next(stage.make_loader())
    batch = {name: value for name, value in loaded.items() if name not in ("record", "start")}
    assert set(batch) == {"codes" if cached else "frames", "actions"}
    variables = jax.jit(stage.init)(jax.random.key(0), stage.frozen, batch)
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])  # at first hardly anything is predicted
    loss = jax.jit(lambda batch: stage.loss(params, stage.frozen, batch, jax.random.key(1), jnp.float32(0.3))[0])
    losses = [float(loss(batch | {"actions": actions})) for actions in (batch["actions"], (batch["actions"] + 1) % 3)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    values, pictures = stage.evaluate(variables, 1, 0.5)
    assert values["validation/kl"] == pytest.approx(2 * math.log(3), rel=1e-5)
    assert pictures


@pytest.mark.parametrize("name", STAGES)
def test_the_stages_have_all_that_the_loop_uses(name: str) -> None:
    stage = find_stage(name)(small_config(), None, {})
    assert isinstance(stage, Stage)
    assert (stage.name, set(frozen_shapes(name, small_config()))) == (name, set(find_stage(name).needs))


@pytest.mark.parametrize(("name", "model"), [("tokenizer", "flam"), *(("dynamics", model) for model in MODELS)])
def test_no_loss_mixes_types(name: str, model: str) -> None:
    """Operands are cast where their types differ: half precision stays half precision."""
    config = small_config()
    config.dynamics.update(name=model)
    stage, frozen = find_stage(name)(config, None, {}), frozen_shapes(name, config)
    batch, key = stage.batch_shapes(2), jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(stage.init, key, frozen, batch)["params"]
    progress = jax.ShapeDtypeStruct((), jnp.float32)
    with jax.numpy_dtype_promotion("strict"):
        loss, _ = jax.eval_shape(stage.loss, params, frozen, batch, key, progress)
    assert (loss.shape, loss.dtype) == ((), jnp.float32)


@pytest.mark.parametrize("cached", [False, True])
def test_a_prepared_batch_gives_the_same_loss(tokenizer_params: Any, cached: bool) -> None:
    for name in ("flam", "action_conditioned"):
        config = small_config()
        config.dynamics.update(name=name, cache_codes=cached, prediction_steps=1)
        stage = DynamicsStage(config, BoardDataset(), {"tokenizer": tokenizer_params})
        loaded = next(stage.make_loader())
        batch = {key: loaded[key] for key in loaded if key not in ("record", "start")}
        params = jax.jit(stage.init)(jax.random.key(0), stage.frozen, batch)["params"]
        prepared = jax.jit(stage.prepare)(stage.frozen, batch)
        losses = [
            float(jax.jit(stage.loss)(params, stage.frozen, each, jax.random.key(1), jnp.float32(0.3))[0])
            for each in (batch, prepared)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
