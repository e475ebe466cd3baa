"""Every experiment that is shipped loads and trains, and every field of a configuration does what its name says."""

import copy
import functools
import itertools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.build import build_dynamics, build_tokenizer
from flam_jax.config import Config, field_names, get_field, load_config, override, validate
from flam_jax.training.flops import count_flops
from flam_jax.training.stage import Stage
from flam_jax.training.stages import find_stage, frozen_shapes
from flam_jax.training.state import TrainState, learning_rate, make_optimizer, new_state
from flam_jax.training.step import init_state, spans, train_step
from tests.tiny import BoardDataset, tiny_config
from tests.training.stand_in import TinyLoader, TinyStage
from tests.training.stand_in import tiny_config as run_config

EXPERIMENTS = {
    "multigrid": ("", "4agents", "2agents", "8agents", "16agents", "correlated", "paper"),
    "procgen": ("", "bigfish", "leaper", "starpilot"),
    "sprites": ("", "plain", "alike", "sizes", "texture", "moving", "panning"),
    "video_folder": ("", "any", "yard"),
    "lerobot": ("",),
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
    actions, attention, decoded = shapes_of_a_pass(*parts, (1, window, *size, 3))
    factors, grid = config.dynamics.num_factors, [side // config.tokenizer.patch_size for side in size]
    assert actions.shape == (1, window - 1, factors, config.dynamics.total_action_dim // factors)
    assert attention.shape == (1, window, factors, *grid)
    assert decoded.shape == (1, window - 1, *size, 3)


@functools.cache
def shapes_of_a_pass(tokenizer: Any, dynamics: Any, shape: tuple[int, ...]) -> Any:
    """Of actions, attention and decoded frames."""

    def through(key: jax.Array, frames: jax.Array) -> Any:
        features, _ = tokenizer.init_with_output(key, frames, method="encode")
        output, _ = dynamics.init_with_output(key, features)
        decoded, _ = tokenizer.init_with_output(key, output.next_features, method="decode")
        return output.actions, output.attention, decoded

    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(through, key, jax.ShapeDtypeStruct(shape, jnp.float32))


def filled(shapes: Any) -> Any:
    """Small random numbers in the shapes of parameters: compiling their initialization would take longer."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: (0.05 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), shapes)


def make_stage(config: Config, name: str, dataset: Any = None) -> Stage:
    return find_stage(name)(config, dataset, filled(frozen_shapes(name, config)))


def make_batch(config: Config, stage: Any) -> dict[str, Any]:
    """Random frames of which a small part moves."""
    training, size = config[stage.name].training, config.data.frame_size
    rng = np.random.default_rng(0)
    frames = np.broadcast_to(rng.integers(0, 256, (*size, 3), np.uint8), (training.batch_size, 1, *size, 3))
    frames = frames.repeat(training.window, axis=1)
    frames[:, :, :8, :8] = rng.integers(0, 256, (training.batch_size, training.window, 8, 8, 3), np.uint8)
    return {"frames": frames}


def state_shapes(config: Config, stage: Any, batch: Any) -> TrainState:
    training = config[stage.name].training
    return jax.eval_shape(
        lambda key, frozen, batch: init_state(key, frozen, batch, stage=stage, training=training),
        jax.random.key(0),
        stage.frozen,
        batch,
    )


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


# What each field of a stage names, and a change of it. A field that is in no table below fails the last test: nothing
# can be declared without an effect.

SHAPES = {  # the shapes of the parameters
    "tokenizer.encoder": "patch",
    "tokenizer.decoder": "cnn",
    "tokenizer.patch_size": 2,
    "tokenizer.channels": 4,
    "tokenizer.num_res_blocks": 1,
    "tokenizer.levels": (3, 3, 3),
    "dynamics.num_factors": 2,
    "dynamics.total_action_dim": 9,
    "dynamics.model_dim": 4,
    "dynamics.num_blocks": 2,
    "dynamics.num_heads": 4,
    "dynamics.history": 2,
    "dynamics.positions": "keys",
    "dynamics.local_context": False,
    "dynamics.aggregator": "cross_attention",
    "dynamics.name": "adaworld",
    "dynamics.codebook_size": 4,
}
# Fields that only some models have.
MODELS = {"dynamics.codebook_size": "genie"}
OF_PATCHES = ("tokenizer.patches_share",)  # of tokenizers that see one patch at a time
LOSSES = {  # the loss of one batch
    "tokenizer.change_weight": 3.0,
    "tokenizer.consistency_weight": 1.0,
    "tokenizer.patches_share": 0.5,
    "dynamics.num_iterations": 3,
    "dynamics.inverse_frequency_power": 0.5,
    "dynamics.cosine_attention": False,
    "dynamics.prediction_steps": 1,
    "dynamics.prediction_steps_start": 0.8,  # the losses are taken at three quarters of training
}
SCHEDULES = {  # what the loss is given at three quarters of training: annealing of the slots, weight of the KL
    "dynamics.inverse_temperature": 2.0,
    "dynamics.slot_anneal_end": 0.5,
    "dynamics.inverse_temperature_start": 0.1,
    "dynamics.inverse_temperature_jitter": 0.1,
    "dynamics.query_noise": 0.1,
    "dynamics.separation_penalty": 1.0,
    "dynamics.kl_weight": 3e-2,
    "dynamics.kl_weight_final": 3e-1,
    "dynamics.kl_anneal_start": 0.2,
}
IMPLICIT = ("dynamics.implicit_gradient", False)
TRAINING = {  # what one look at the schedule, an update, a batch or a run shows
    "num_steps": 3,
    "batch_size": 5,
    "accumulate": 2,
    "rematerialize": True,
    "on_nonfinite": "skip",
    "window": 3,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 5,
    "weight_decay": 0.1,
    "clip_norm": 0.1,
    "dtype": "bfloat16",
    "log_every": 3,
    "eval_every": 3,
    "checkpoint_every": 3,
    "checkpoints_kept": 1,
}


def base_config(field: str = "") -> Config:
    """What a change of `field` is compared with."""
    config = copy.deepcopy(tiny_config(name=MODELS.get(field, "flam"), kl_weight=1e-2, kl_weight_final=1e-1))
    config.dynamics.update(prediction_steps=2, kl_anneal_start=0.5, slot_anneal_end=0.9)
    # A receptive field beyond the patch: only then can features change where pixels do not.
    config.tokenizer.encoder = "impala"
    if field in OF_PATCHES:
        config.tokenizer.update(encoder="patch", patches_share=0.25, lpips_weight=0.0)
    for stage in STAGES:
        config[stage].training.update(num_steps=20, batch_size=4)
    return validate(config)


def changed(name: str, value: Any) -> Config:
    config = copy.deepcopy(base_config(name))
    before = get_field(config, name)
    override(config, name, value)
    assert get_field(config, name) != before
    return validate(config)


def parameter_shapes(config: Config, stage_name: str) -> list[tuple[str, tuple[int, ...]]]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    size = config.data.frame_size
    grid = [side // config.tokenizer.patch_size for side in size]
    if stage_name == "tokenizer":
        shape, module = (1, *size, 3), build_tokenizer(config)
    else:
        shape, module = (1, 2, *grid, len(config.tokenizer.levels)), build_dynamics(config)
    params = jax.eval_shape(module.init, key, jax.ShapeDtypeStruct(shape, jnp.float32))
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


@functools.cache
def loss_value(stage_name: str, name: str = "", value: Any = None) -> float:
    config = base_config(name) if value is None else changed(name, value)
    stage = make_stage(config, stage_name)

    batch = make_batch(config, stage)
    # Random numbers, not initial values: an untrained model predicts no change, whatever the other fields say.
    params = jax.tree.map(lambda leaf: 4 * leaf, filled(state_shapes(config, stage, batch).params))
    return float(jax.jit(stage.loss)(params, stage.frozen, batch, jax.random.key(2), jnp.float32(0.75))[0])


@pytest.mark.parametrize(("name", "value"), SHAPES.items(), ids=SHAPES)
def test_a_field_of_a_model_changes_its_parameters(name: str, value: Any) -> None:
    stage = name.split(".")[0]
    base = base_config(name)
    assert parameter_shapes(changed(name, value), stage) != parameter_shapes(base, stage)


@pytest.mark.parametrize(("name", "value"), LOSSES.items(), ids=LOSSES)
def test_a_field_of_a_loss_changes_its_value(name: str, value: Any) -> None:
    stage = name.split(".")[0]
    before = loss_value(stage, name if name in (*MODELS, *OF_PATCHES) else "")
    assert loss_value(stage, name, value) != pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize(("name", "value"), SCHEDULES.items(), ids=SCHEDULES)
def test_a_field_of_a_schedule_changes_it(name: str, value: Any) -> None:
    def at_three_quarters(config: Config) -> tuple[float, list[np.ndarray]]:
        stage: Any = make_stage(config, "dynamics")
        annealing = jax.tree.leaves(stage.annealing(0.75, jax.random.key(0), 2))
        return float(stage.kl_weight(0.75)), [np.asarray(leaf) for leaf in annealing]

    (weight, before), (new_weight, after) = at_three_quarters(base_config()), at_three_quarters(changed(name, value))
    same = len(before) == len(after) and all(map(np.array_equal, before, after))
    in_weight = name.startswith("dynamics.kl_")
    assert (weight != new_weight, not same) == (in_weight, not in_weight)


def test_the_implicit_gradient_costs_less_than_the_full_one() -> None:
    implicit, full = (make_stage(config, "dynamics") for config in (base_config(), changed(*IMPLICIT)))
    assert flops_of_gradient(implicit) < flops_of_gradient(full)


def test_cached_codes_take_the_place_of_frames() -> None:
    for cached in (False, True):
        config = changed("dynamics.cache_codes", True) if cached else base_config()
        loader = make_stage(config, "dynamics", BoardDataset()).make_loader()
        assert set(next(loader)) - {"record", "start"} == ({"codes"} if cached else {"frames"})
        loader.close()


def schedule(training: Config) -> list[float]:
    return [float(learning_rate(step, training)) for step in range(20)]


def update(training: Config) -> float:
    """Size of the second update; the first of AdamW does not depend on the size of the gradient."""
    params = {"kernel": jnp.ones(3)}
    optimizer = make_optimizer(training)
    updates: Any = None
    state = optimizer.init(params)
    for size in (1.0, 0.2):
        updates, state = optimizer.update({"kernel": jnp.full(3, size)}, state, params)
    return float(jnp.abs(updates["kernel"]).sum())


def flops_of_gradient(stage: Any) -> int:
    """Of one prediction pass."""
    config = copy.deepcopy(stage.config)
    config.dynamics.prediction_steps = 1
    stage = make_stage(config, stage.name)
    batch = make_batch(config, stage)
    params = state_shapes(config, stage, batch).params
    gradient = jax.grad(lambda params: stage.loss(params, stage.frozen, batch, jax.random.key(0), jnp.float32(0.75))[0])
    return count_flops(jax.make_jaxpr(gradient)(params))


def batch_shape(config: Config, stage: str) -> tuple[int, ...]:
    loader = make_stage(config, stage, BoardDataset()).make_loader()
    shape = next(loader)["frames"].shape
    loader.close()
    return shape


def compute_types(config: Config, stage: str) -> set[str]:
    """Types of the results of all matrix products and convolutions of the model."""
    module = build_tokenizer(config) if stage == "tokenizer" else build_dynamics(config)
    shape = (1, 16, 16, 3) if stage == "tokenizer" else (1, 2, 4, 4, 2)
    traced = jax.make_jaxpr(lambda x: module.init_with_output(jax.random.key(0), x)[0])(jnp.zeros(shape))
    return set(re.findall(r":(\w+)\[[\d,]*\] = (?:dot_general|conv_general_dilated)", str(traced)))


@functools.cache
def run(folder: Path, name: str = "", value: Any = None) -> dict[str, Any]:
    """Twelve steps of a stand-in model through the trainer, and what is then on disk."""
    from flam_jax.metrics_file import read_metrics
    from flam_jax.training.trainer import train

    fields = dict(checkpoints_kept=2) | ({name: value} if name else {})
    workdir, stage = folder / f"run{name}", TinyStage()
    train(stage, run_config(**fields), workdir)
    saved = sorted(int(path.name) for path in (workdir / "tokenizer" / "checkpoints").iterdir() if path.name.isdigit())
    logged = [entry["step"] for entry in read_metrics(workdir, "tokenizer") if "speed" in entry]
    return {"log_every": logged, "eval_every": stage.evaluated, "checkpoint_every": saved, "checkpoints_kept": saved}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("name", "value"), TRAINING.items(), ids=TRAINING)
def test_a_field_of_training_changes_what_it_names(
    stage: str, name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if name.endswith(("_every", "_kept")):
        if stage == "tokenizer":  # one trainer runs both
            folder = tmp_path_factory.getbasetemp()
            assert run(folder, name, value)[name] != run(folder)[name]
        return
    if name in ("batch_size", "window"):
        before, after = (
            batch_shape(base_config(), stage),
            batch_shape(changed(f"{stage}.training.{name}", value), stage),
        )
        axis = ("batch_size", "window").index(name)
        assert after[axis] == value != before[axis]
        return
    if name == "accumulate":  # a loop over the parts
        counts = []
        for config in (base_config(), changed(f"{stage}.training.{name}", value)):
            built = make_stage(config, stage)
            batch = make_batch(config, built)
            step = functools.partial(train_step, stage=built, training=config[stage].training, seed=0)
            counts.append(
                str(jax.make_jaxpr(step)(state_shapes(config, built, batch), built.frozen, batch)).count("scan[")
            )
        assert counts[1] == counts[0] + 1
        return
    if name == "rematerialize":  # the same parameters and loss, more products for its gradient
        first, again = base_config(), changed(f"{stage}.training.{name}", value)
        assert parameter_shapes(first, stage) == parameter_shapes(again, stage)
        assert loss_value(stage, f"{stage}.training.{name}", value) == pytest.approx(loss_value(stage), rel=1e-6)
        built = [make_stage(config, stage) for config in (first, again)]
        assert flops_of_gradient(built[1]) > flops_of_gradient(built[0])
        return
    if name == "on_nonfinite":
        config = run_config().tokenizer.training
        state = init_state(jax.random.key(0), {}, next(TinyLoader()), stage=TinyStage(), training=config)
        bad = {"frames": next(TinyLoader(bad_step=1))["frames"]}
        kept = []
        for training in (config, config.copy_and_resolve_references()):
            training.on_nonfinite = value if kept else "stop"
            new, metrics = train_step(state, {}, bad, stage=TinyStage(), training=training, seed=0)
            assert not metrics["finite"]
            kept.append(jax.tree.all(jax.tree.map(np.array_equal, new.params, state.params)))
        assert kept == [False, True]
        return
    if name == "dtype":
        assert compute_types(base_config(), stage) == {"f32"}
        assert "bf16" in compute_types(changed(f"{stage}.training.{name}", value), stage)
        return
    config = copy.deepcopy(base_config())
    if name in ("num_steps", "warmup_steps"):
        config[stage].training.schedule = "cosine"
    before = config[stage].training
    after = copy.deepcopy(before)
    after[name] = value
    if name in ("weight_decay", "clip_norm"):
        assert update(before) != pytest.approx(update(after), rel=1e-3)
    else:
        assert schedule(before) != pytest.approx(schedule(after), rel=1e-3)


def test_every_field_of_the_stages_is_tried_above() -> None:
    tried = {*SHAPES, *LOSSES, *SCHEDULES, IMPLICIT[0], "dynamics.cache_codes"}
    tried |= {f"{stage}.training.{name}" for stage in STAGES for name in TRAINING}
    tried |= {"tokenizer.restore_from", "dynamics.restore_from"}  # in tests/test_main.py
    tried |= {"tokenizer.lpips_weight"}  # in tests/training/test_stages.py
    assert {name for name in field_names(base_config()) if name.startswith(STAGES)} == tried
