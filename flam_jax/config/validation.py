"""What can work: every field within its bounds, and what must fit together."""

import math
from typing import Any

from data_pipelines.paths import expand_path
from data_pipelines.registry import definition, spec_of
from flam_jax.config.footprint import least_memory
from flam_jax.config.schema import Config, ConfigError, field_names, fields, get_field, steps_of
from flam_jax.messages import short_repr
from flam_jax.models import MODELS

_MOST_CLIP_BYTES = 2**30  # a record; the format of the files ends at twice that
_MOST_CHANNELS = 256  # of quantized features
_MOST_BYTES = 2**44  # of one array or kind of parameters, over all devices: no machine has that much


def validate(config: Config) -> Config:
    """Checks every field and the fields against each other; returns the configuration, locked, with `~` expanded.

    Raises:
      ConfigError: names the first field that cannot work, its value and what was expected.
    """
    known = fields()
    there = set(field_names(config))
    for name in sorted(there ^ set(known)):
        raise ConfigError(f"config.{name}: {'a field is missing' if name in known else 'no such field'}")
    for name, field in known.items():
        value = get_field(config, name)
        if field.folder and isinstance(value, str) and expand_path(value) != value:
            value = expand_path(value)
            _set(config, name, value)
        expected = field.expected(value)
        _expect(not expected, name, value, expected)
    _check_mesh(config)
    _check_data(config)
    _check_tokenizer(config)
    _check_dynamics(config)
    _check_evaluation(config)
    for stage in ("tokenizer", "dynamics"):
        training = config[stage].training
        field = f"{stage}.training"
        clip = config.data.clip_length
        _expect(training.window <= clip, f"{field}.window", training.window, f"at most data.clip_length = {clip}")
        batch, parts = training.batch_size, training.accumulate
        _expect(batch % parts == 0, f"{field}.batch_size", batch, f"a multiple of {field}.accumulate = {parts}")
        steps, warmup = training.num_steps, training.warmup_steps
        _expect(warmup < steps, f"{field}.warmup_steps", warmup, f"less than {field}.num_steps = {steps}")
    check_memory(config, _MOST_BYTES)
    return config.lock()


def check_memory(config: Config, available: int, num_frames: int = 0) -> None:
    """Refuses what does not fit into so many bytes, by rough lower bounds: what passes may still be too much.

    Args:
      config: of the run.
      available: bytes.
      num_frames: of a data set that is read, once it is known.

    Raises:
      ConfigError: names the field that asks for more.
    """
    if not definition(config.data.name).reads:
        num_frames = config.data.num_frames
    for name, need in least_memory(config, spec_of(config.data), num_frames).items():
        expected = f"to fit into {available / 2**30:,.0f} GiB of memory, it takes {need / 2**30:,.0f} GiB or more"
        _expect(need <= available, name, get_field(config, name), expected)


def _check_mesh(config: Config) -> None:
    sizes = dict(config.mesh)
    for axis, size in sizes.items():
        _expect(size != 0, f"mesh.{axis}", size, "a number of devices, or -1 for those that are left")
    free = [f"mesh.{axis}" for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"config.{free[0]} and config.{free[1]} are both -1: expected at most one -1 in config.mesh")


def _check_data(config: Config) -> None:
    data = config.data
    found = definition(data.name)
    if found.reads:
        default = fields()["data.num_frames"].default
        expected = f"{default}, the default: the files of data.{found.reads} decide how many frames there are"
        _expect(data.num_frames == default, "data.num_frames", data.num_frames, expected)
    else:
        least = 10 * data.clip_length
        expected = f"10 clips, that is {least} frames, or more"
        _expect(data.num_frames >= least, "data.num_frames", data.num_frames, expected)
    clip = data.clip_length * math.prod(data.frame_size) * 3
    expected = f"less, a clip of {clip / 2**30:.1f} GiB does not fit into a record: at most 1 GiB"
    _expect(clip <= _MOST_CLIP_BYTES, "data.clip_length", data.clip_length, expected)
    for name, value, expected in found.problems(data):
        _expect(False, f"data.{name}", value, expected)


def _check_tokenizer(config: Config) -> None:
    tokenizer, (height, width) = config.tokenizer, config.data.frame_size
    levels, patch = tokenizer.levels, tokenizer.patch_size
    fits = 1 <= len(levels) <= _MOST_CHANNELS and all(type(n) is int and 2 <= n <= 256 for n in levels)
    _expect(fits, "tokenizer.levels", levels, f"1 to {_MOST_CHANNELS} whole numbers from 2 to 256")
    fits = height % patch == width % patch == 0
    _expect(fits, "tokenizer.patch_size", patch, f"a divisor of data.frame_size = {height},{width}")
    power = patch & (patch - 1) == 0
    if tokenizer.encoder in ("impala", "magvit") or tokenizer.decoder in ("cnn", "magvit"):
        expected = "a power of 2 for networks of convolutions (impala, cnn, magvit)"
        _expect(power, "tokenizer.patch_size", patch, expected)
    temporal = tokenizer.temporal_kernel == 1 or tokenizer.encoder == "magvit"
    expected = "1, unless tokenizer.encoder is magvit"
    _expect(temporal, "tokenizer.temporal_kernel", tokenizer.temporal_kernel, expected)
    if tokenizer.encoder == "precomputed":
        _check_features(config)
    if tokenizer.patches_share < 1:
        local = tokenizer.encoder == tokenizer.decoder == "patch"
        expected = "1, unless encoder and decoder are patch"
        _expect(local, "tokenizer.patches_share", tokenizer.patches_share, expected)
        weight, expected = tokenizer.lpips_weight, "0: LPIPS reads whole frames, and tokenizer.patches_share is below 1"
        _expect(weight == 0, "tokenizer.lpips_weight", weight, expected)
        weight, expected = tokenizer.adversarial_weight, "0: it needs whole frames, tokenizer.patches_share is below 1"
        _expect(weight == 0, "tokenizer.adversarial_weight", weight, expected)
    if tokenizer.adversarial_weight:
        _expect(power, "tokenizer.patch_size", patch, "a power of 2, for tokenizer.adversarial_weight above 0")
        training, start = tokenizer.training, tokenizer.adversarial_start
        first, last = steps_of((start, 1.0), training.num_steps)
        expected = f"less: tokenizer.training.warmup_steps = {training.warmup_steps} do not fit in {last - first} steps"
        _expect(training.warmup_steps < last - first, "tokenizer.adversarial_start", start, expected)


def _check_features(config: Config) -> None:
    """Of records that bring features."""
    tokenizer, (height, width) = config.tokenizer, config.data.frame_size
    features = spec_of(config.data).annotations.get("features")
    if features is None:
        expected = f"another encoder: the records of {config.data.name} have no features"
        _expect(False, "tokenizer.encoder", tokenizer.encoder, expected)
        return
    patch, (rows, columns, _) = tokenizer.patch_size, features.shape
    expected = f"{height // rows}, as {rows} x {columns} features of a frame of {height} x {width} pixels are"
    _expect((height, width) == (rows * patch, columns * patch), "tokenizer.patch_size", patch, expected)
    expected = "False: features that the records bring have no codes"
    _expect(not config.dynamics.cache_codes, "dynamics.cache_codes", config.dynamics.cache_codes, expected)
    expected = "0: features that the records bring are not trained"
    _expect(tokenizer.entropy_weight == 0, "tokenizer.entropy_weight", tokenizer.entropy_weight, expected)


def _check_dynamics(config: Config) -> None:
    dynamics = config.dynamics
    known = not dynamics.restore_from or bool(config.tokenizer.restore_from)
    expected = "tokenizer.restore_from to name the same run: dynamics know the codes of their own tokenizer alone"
    _expect(known, "dynamics.restore_from", dynamics.restore_from, expected)
    factors, total = dynamics.num_factors, dynamics.total_action_dim
    _expect(total % factors == 0, "dynamics.total_action_dim", total, f"a multiple of dynamics.num_factors = {factors}")
    heads, dim = dynamics.num_heads, dynamics.model_dim
    _expect(dim % heads == 0, "dynamics.num_heads", heads, f"a divisor of dynamics.model_dim = {dim}")
    window, passes = dynamics.training.window, dynamics.prediction_steps
    _expect(window > passes, "dynamics.training.window", window, f"more than dynamics.prediction_steps = {passes}")
    model = MODELS[dynamics.name]
    if model.slot_training_share:  # slots, then the dynamics on them: each warms up
        steps, warmup = dynamics.training.num_steps, dynamics.training.warmup_steps
        of_slots, _ = steps_of((model.slot_training_share, 1.0), steps)
        spans = [count for count in (of_slots, steps - of_slots) if count]  # a single step has one part
        expected = f"less than {min(spans)}: {dynamics.name} learns slots in {of_slots} of {steps} steps"
        _expect(warmup < min(spans), "dynamics.training.warmup_steps", warmup, expected)
    known = not model.given_actions or spec_of(config.data).actors > 0
    _expect(known, "dynamics.name", dynamics.name, f"another model: the actions of {config.data.name} are not known")
    expected = f"0: {dynamics.name} is not given the actions of what is put in"
    _expect(not (model.given_actions and dynamics.copy_paste), "dynamics.copy_paste", dynamics.copy_paste, expected)
    follow = "features" not in spec_of(config.data).annotations
    expected = f"0: the features of {config.data.name} would not show what is put into its frames"
    _expect(follow or not dynamics.copy_paste, "dynamics.copy_paste", dynamics.copy_paste, expected)


def _check_evaluation(config: Config) -> None:
    evaluation, clip = config.evaluation, config.data.clip_length
    context, steps = evaluation.context, evaluation.steps
    room = f"context + steps = {context + steps} to be at most data.clip_length = {clip}"
    _expect(context + steps <= clip, "evaluation.steps", steps, room)
    every, validations = evaluation.every, config.dynamics.training.eval_every
    expected = f"a multiple of dynamics.training.eval_every = {validations}"
    _expect(every % validations == 0, "evaluation.every", every, expected)


def _set(config: Config, name: str, value: Any) -> None:
    *parents, leaf = name.split(".")
    node = get_field(config, ".".join(parents)) if parents else config
    node[leaf] = value


def _expect(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"config.{name} = {short_repr(value)}: expected {expected}")


__all__ = ["check_memory", "validate"]
