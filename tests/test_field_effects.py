"""Every field of the stages does what its name says."""

import copy
import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.build import build_dynamics, build_tokenizer
from flam_jax.config import Config, field_names, get_field, override, validate
from flam_jax.training.flops import count_flops
from flam_jax.training.state import learning_rate, make_optimizer
from flam_jax.training.step import init_state, train_step
from tests.stages import filled, make_batch, make_stage, state_shapes
from tests.tiny import BoardDataset, tiny_config
from tests.training.stand_in import TinyLoader, TinyStage
from tests.training.stand_in import tiny_config as run_config

STAGES = ("tokenizer", "dynamics")

# What each field of a stage names, and a change of it. A field that is in no table below fails the last test: nothing
# can be declared without an effect.

SHAPES = {  # the shapes of the parameters
    "tokenizer.encoder": "patch",
    "tokenizer.decoder": "cnn",
    "tokenizer.patch_size": 2,
    "tokenizer.channels": 4,
    "tokenizer.num_res_blocks": 1,
    "tokenizer.levels": (3, 3, 3),
    "tokenizer.temporal_kernel": 3,
    "dynamics.num_factors": 2,
    "dynamics.total_action_dim": 9,
    "dynamics.model_dim": 4,
    "dynamics.num_blocks": 2,
    "dynamics.num_heads": 4,
    "dynamics.history": 2,
    "dynamics.positions": "keys",
    "dynamics.local_context": False,
    "dynamics.aggregator": "cross_attention",
    "dynamics.reconstruction_weight": 0.1,
    "dynamics.name": "adaworld",
    "dynamics.codebook_size": 4,
}
# Fields that only some models have.
MODELS = {"dynamics.codebook_size": "genie"}
OF_PATCHES = ("tokenizer.patches_share",)  # of tokenizers that see one patch at a time
OF_CLIPS = ("tokenizer.temporal_kernel",)  # of the encoder that may see several frames
ADVERSARIAL = ("tokenizer.adversarial_weight", "tokenizer.adversarial_start")
LOSSES = {  # the loss of one batch
    "tokenizer.change_weight": 3.0,
    "tokenizer.consistency_weight": 1.0,
    "tokenizer.entropy_weight": 1.0,
    "tokenizer.adversarial_weight": 2.0,
    "tokenizer.adversarial_start": 0.8,  # the losses are taken at three quarters of training
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
    "optimizer": "muon",
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
    if field in OF_CLIPS:
        config.tokenizer.encoder = "magvit"
    if field in ADVERSARIAL:
        config.tokenizer.update(adversarial_weight=1.0)
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
    before = loss_value(stage, name if name in (*MODELS, *OF_PATCHES, *ADVERSARIAL) else "")
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


class FoundClips(list[Any]):
    """Records as a split has them on disk."""

    skips = False

    @property
    def fields(self) -> Any:
        return self[0]

    def find(self, index: int, keys: Any) -> tuple[int, dict[str, Any]]:
        return index, {key: self[index][key] for key in keys}

    def read(self, index: int, keys: Any) -> dict[str, Any]:
        return self.find(index, keys)[1]


class FoundDataset(BoardDataset):
    def split(self, name: str) -> FoundClips:
        return FoundClips(super().split(name))


@pytest.mark.parametrize("cached", [False, True])
def test_copies_are_trained_on_as_much_as_the_clips_and_are_not_validated(cached: bool) -> None:
    config = changed("dynamics.copy_paste", 3)
    config.dynamics.cache_codes = cached
    stage = make_stage(config, "dynamics", FoundDataset())
    loader, clips = stage.make_loader(), FoundDataset().clips
    batches = [next(loader)["record"] for _ in range(4 * clips // config.dynamics.training.batch_size)]
    loader.close()
    numbers = np.concatenate(batches)
    assert len(set(numbers.tolist())) == len(numbers) > 3 * clips
    assert numbers.max() < 4 * clips
    plain = make_stage(base_config(), "dynamics", FoundDataset())
    jax.tree.map(np.testing.assert_array_equal, stage._validation, plain._validation)


def schedule(training: Config) -> list[float]:
    return [float(learning_rate(step, training)) for step in range(20)]


def update(training: Config) -> float:
    """Size of the second update; the first of AdamW does not depend on the size of the gradient."""
    params = {"kernel": jnp.ones((3, 3))}
    optimizer = make_optimizer(training)
    updates: Any = None
    state = optimizer.init(params)
    for size in (1.0, 0.2):
        updates, state = optimizer.update({"kernel": jnp.full((3, 3), size)}, state, params)
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
    if name in ("optimizer", "weight_decay", "clip_norm"):
        assert update(before) != pytest.approx(update(after), rel=1e-3)
    else:
        assert schedule(before) != pytest.approx(schedule(after), rel=1e-3)


def test_every_field_of_the_stages_is_tried_above() -> None:
    tried = {*SHAPES, *LOSSES, *SCHEDULES, IMPLICIT[0], "dynamics.cache_codes", "dynamics.copy_paste"}
    tried |= {f"{stage}.training.{name}" for stage in STAGES for name in TRAINING}
    tried |= {"tokenizer.restore_from", "dynamics.restore_from"}  # in tests/test_main.py
    tried |= {"tokenizer.lpips_weight"}  # in tests/evaluation/test_perceptual.py
    assert {name for name in field_names(base_config()) if name.startswith(STAGES)} == tried
