"""Every experiment that is shipped loads and trains."""

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.build import build_dynamics, build_tokenizer, feature_shape
from flam_jax.config import Config, load_config, validate
from flam_jax.training.state import make_optimizer, new_state
from flam_jax.training.step import spans, train_step
from tests.stages import filled, make_batch, make_stage, state_shapes

EXPERIMENTS = {
    "multigrid": ("", "4agents", "2agents", "8agents", "16agents", "correlated", "paper"),
    "procgen": ("", "bigfish", "leaper", "starpilot"),
    "sprites": ("", "plain", "alike", "sizes", "texture", "moving", "panning"),
    "video_folder": ("", "any", "yard"),
    "lerobot": ("",),
    "feature_folder": ("",),
    "nuplan": ("", "front", "left", "right", "back"),
}
PRESETS = dict.fromkeys(EXPERIMENTS, ("", "cpu", "debug")) | {"multigrid": ("", "gpu", "cpu", "debug")}
STAGES = ("tokenizer", "dynamics")
FOLDER = Path(__file__).parents[1] / "experiments"


def load(name: str, variant: str, preset: str) -> Config:
    return load_config(FOLDER / f"{name}.py", ",".join(filter(None, (variant, preset))))


def test_the_table_above_is_complete() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == set(EXPERIMENTS)
    for name, variants in EXPERIMENTS.items():
        with pytest.raises(ValueError, match="config argument 'x'") as error:
            load(name, "x", "")
        _, *groups = re.split(r"(?:expected | and )at most one of ", str(error.value))
        known = [set(group.split(", ")) for group in groups]
        expected = [set(variants) - {""}, set(PRESETS[name]) - {""}]
        assert known[:2] == [words for words in expected if words]


@pytest.mark.parametrize(
    ("name", "variant", "preset"),
    [(name, *words) for name, variants in EXPERIMENTS.items() for words in itertools.product(variants, PRESETS[name])],
)
def test_every_variant_in_every_preset_is_valid_and_its_models_fit_together(
    name: str, variant: str, preset: str
) -> None:
    """At full size, by shapes alone: what the tokenizer makes goes through the dynamics and back."""
    config = load(name, variant, preset)
    validate(config)
    size, window = config.data.frame_size, 2
    # Variants that differ in the data alone have one model.
    parts = (build_tokenizer(config), build_dynamics(config))
    shown = (*size, 3) if parts[0].reads == "frames" else feature_shape(config)
    actions, attention, decoded = shapes_of_a_pass(*parts, (1, window, *shown))
    factors, grid = config.dynamics.num_factors, [side // config.tokenizer.patch_size for side in size]
    assert actions.shape == (1, window - 1, factors, config.dynamics.total_action_dim // factors)
    assert attention.shape == (1, window, factors, *grid)
    assert decoded.shape == (1, window - 1, *size, 3)


@functools.cache
def shapes_of_a_pass(tokenizer: Any, dynamics: Any, shape: tuple[int, ...]) -> Any:
    """Of actions, attention and decoded frames."""

    def through(key: jax.Array, shown: jax.Array) -> Any:
        features, _ = tokenizer.init_with_output(key, shown, method="encode")
        output, _ = dynamics.init_with_output(key, features)
        decoded, _ = tokenizer.init_with_output(key, output.next_features, method="decode")
        return output.actions, output.attention, decoded

    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(through, key, jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("words", ["multigrid.py:paper", "procgen.py:paper,leaper", "procgen.py:paper,starpilot,cpu"])
def test_the_papers_model_has_nothing_of_ours(words: str) -> None:
    config = load_config(f"{FOLDER}/{words}")
    fields = config.dynamics
    assert (fields.name, fields.positions, fields.aggregator) == ("flam", "features", "cross_attention")
    assert not any((fields.cosine_attention, fields.implicit_gradient, fields.local_context))
    assert fields.inverse_frequency_power == fields.separation_penalty == fields.query_noise == 0
    assert fields.kl_weight == fields.kl_weight_final == 2e-4
    assert config.tokenizer.change_weight == 0
    stage: Any = make_stage(config, "dynamics")
    for progress in (0.0, 0.5):  # not annealed
        annealing = stage.annealing(progress, jax.random.key(0), 9)
        assert set(np.asarray(annealing.inverse_temperature).tolist()) == {1.0}
        assert float(jnp.abs(annealing.query_noise).max()) == 0.0
        assert annealing.separation_penalty is None
    expected = {"multigrid.py:paper": "", "procgen.py:paper,leaper": "leaper"}.get(words, "starpilot")
    assert config.data.procgen.game == expected or not expected


# The models of the others are like these.
IN_SHORT = [(name, "cpu") for name in ("multigrid", "procgen", "sprites")]
TRAINED = [(name, preset) for name in EXPERIMENTS for preset in PRESETS[name] if preset != "debug"]


@pytest.mark.parametrize(("name", "preset"), [words for words in TRAINED if words not in IN_SHORT])
@pytest.mark.parametrize("stage_name", STAGES)
def test_the_loss_of_every_experiment_is_a_number_at_its_full_size(name: str, preset: str, stage_name: str) -> None:
    config = load(name, "", preset)
    stage = make_stage(config, stage_name)
    batch = make_batch(config, stage)
    shapes = state_shapes(config, stage, batch)
    key, progress = jax.eval_shape(lambda: (jax.random.key(0), jnp.float32(0)))
    whole, _ = jax.eval_shape(stage.loss, shapes.params, stage.frozen, batch, key, progress)
    assert (whole.shape, whole.dtype) == ((), jnp.float32)


@pytest.mark.parametrize(
    ("name", "preset"),
    [pytest.param(*words, marks=() if words in IN_SHORT else pytest.mark.long) for words in TRAINED],
)
@pytest.mark.parametrize("stage_name", STAGES)
def test_every_experiment_trains_one_step(name: str, preset: str, stage_name: str) -> None:
    """A step of one window, with one block, two iterations and one pass.

    The debug presets are run from end to end, by the commands of the README.
    """
    train_one_step(name, preset, stage_name)


def test_the_causal_tokenizer_of_nuplan_trains_one_step() -> None:
    """No command of the README runs it, and no other debug preset has an adversarial loss."""
    train_one_step("nuplan", "debug", "tokenizer")


def train_one_step(name: str, preset: str, stage_name: str) -> None:
    config = load(name, "", preset)
    training = config[stage_name].training
    config.dynamics.update(prediction_steps=1, num_blocks=1, num_iterations=2)
    training.update(batch_size=1, accumulate=1, window=2)
    validate(config)
    stage = make_stage(config, stage_name)
    shapes = state_shapes(config, stage, make_batch(config, stage))
    optimizer = make_optimizer(training, spans(shapes.params, stage))
    state = new_state(filled(shapes.params), optimizer)
    step = jax.jit(functools.partial(train_step, training=training, seed=0, stage=stage))
    new, metrics = step(state, stage.frozen, make_batch(config, stage))
    shape = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    assert jax.tree.map(shape, new.opt_state) == jax.tree.map(shape, state.opt_state)
    assert int(new.step) == 1
    assert bool(metrics["finite"])
    assert float(metrics["grad_norm"]) > 0
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(new.params), strict=True)
    assert np.mean([not np.array_equal(before, after) for before, after in pairs]) > 0.5
