"""The configuration schema: every field with its default, and the checks that name the field.

A configuration is an `ml_collections.ConfigDict` tree, locked so that a misspelt field cannot pass. It is made by a file in
`experiments/` that starts from `default_config()` and edits it. The tree stops at the `build_*` functions of
`flam_jax.build`: modules take plain fields and never see a configuration.
"""

import difflib
import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot work. The message names the field, its value and what was expected."""


def _training(**changes: Any) -> ConfigDict:
    """Fields of one training stage; both stages are run by the same trainer."""
    training = ConfigDict(
        dict(
            num_steps=100_000,
            batch_size=32,  # windows per step, over all devices
            window=2,  # consecutive frames per example
            learning_rate=1e-4,
            schedule="constant",  # constant | cosine; both after a linear warm-up
            warmup_steps=0,
            weight_decay=0.0,
            clip_norm=1.0,  # global gradient norm; 0 turns clipping off
            ema_decay=0.0,  # 0 turns the moving average off; else evaluation uses the averaged parameters
            dtype="float32",  # compute type: float32 | bfloat16; parameters stay float32
            log_every=100,
            eval_every=2_000,  # validation loss and pictures
            checkpoint_every=2_000,
            checkpoints_kept=2,
        )
    )
    training.update(changes)
    return training


def default_config() -> ConfigDict:
    """The whole tree with the paper's settings where it states them (PAPER: settings known)."""
    return ConfigDict(
        dict(
            seed=0,  # parameters, batch order and noise; the data have their own
            mesh=dict(data=-1, fsdp=1, factor=1),  # devices per mesh axis; -1 takes the devices that are left
            data=dict(
                name="multigrid",  # multigrid | procgen
                path="data",  # folder of the generated data sets
                seed=0,
                frame_size=128,  # pixels, square frames
                num_frames=100_000,  # over all splits
                clip_length=32,  # consecutive frames of one episode per record
                generate_workers=0,  # processes that render; 0 means one per core
                loader_workers=0,  # processes that read; 0 reads in threads of the training process
                multigrid=dict(
                    grid_size=8,  # cells per side, the outer wall included
                    num_agents=4,
                    shared_actions=0,  # the first n agents always take the same action; 0: all independent
                ),
                procgen=dict(
                    game="bigfish",  # bigfish | leaper | starpilot
                    num_levels=500,
                    action_repeat=4,  # mean number of steps that the random policy keeps an action
                ),
            ),
            tokenizer=dict(
                encoder="impala",  # impala | patch
                decoder="cnn",  # cnn | patch
                patch_size=8,  # pixels per side that one code stands for
                channels=128,
                num_res_blocks=2,  # per scale
                levels=(4, 4, 4, 4, 4),  # finite scalar quantization: levels per feature channel
                change_weight=10.0,  # extra weight of pixels that change within the window
                l1_weight=1.0,
                l2_weight=1.0,
                gradient_weight=0.0,  # L1 between the spatial gradients of the frames
                consistency_weight=0.0,  # features must not change where pixels do not
                training=_training(num_steps=100_000, batch_size=64, window=2),
            ),
            dynamics=dict(
                name="flam",
                num_factors=4,
                total_action_dim=256,  # shared out evenly over the factors
                model_dim=256,
                num_blocks=2,  # per transformer: context stream, per-factor stream, aggregator
                num_heads=8,
                history=5,  # frames that temporal attention sees, the current one included
                num_iterations=3,  # of slot attention
                attention_sharpness=4.0,  # multiplies the logits of slot attention
                sharpness_warmup=0.6,  # share of training over which the sharpness grows from a quarter to its full value
                sharpness_jitter=0.5,  # during that time: log-normal noise per example (standard deviation)
                position_in_keys=False,  # let slots compete for places as well as for contents
                kl_weight=2e-4,  # beta, on summed squared error and summed KL
                kl_weight_final=2e-4,  # beta is annealed geometrically to this value
                kl_anneal_start=0.5,  # share of training at which annealing starts; it ends at 1
                prediction_steps=5,
                quantize_predictions=True,  # before predicted features are fed back or decoded
                cache_codes=False,  # train from codes computed once instead of from frames
                training=_training(num_steps=200_000, batch_size=32, window=10),
            ),
            evaluation=dict(
                num_clips=200,  # test clips that are rolled out
                batch_size=20,
                context=5,  # true frames before the rollout starts
                steps=10,  # rolled-out frames
                probe_clips=200,  # clips per split of the linear probes
                num_pictures=4,  # rollouts shown in the report
            ),
        )
    )


def load_config(path: str | Path, arguments: str = "", overrides: dict[str, Any] | None = None) -> ConfigDict:
    """Loads and validates `get_config(arguments)` of an experiment file.

    Args:
      path: an experiment file, for example `experiments/multigrid.py`. `path:arguments` is understood too.
      arguments: comma-separated variant and preset, for example `"cpu"` or `"bigfish,cpu"`.
      overrides: values by dotted field name, for example `{"data.seed": 1}`.

    Returns:
      The locked, validated configuration.

    Raises:
      ConfigError: the file, an argument or a field is wrong.
    """
    path, _, inline = str(path).partition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"--config: no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"flam_jax_experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--config: {path} does not load: {type(error).__name__}: {error}") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config: {path} defines no get_config(arguments)")
    config = module.get_config(arguments or inline)
    for name, value in (overrides or {}).items():
        override(config, name, value)
    return validate(config)


def override(config: ConfigDict, name: str, value: Any) -> None:
    """Sets one field by its dotted name; text is converted to the field's type.

    Raises:
      ConfigError: there is no such field (the message names the nearest one) or the value is of another type.
    """
    *parents, leaf = name.split(".")
    node = config
    for parent in parents:
        node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
    known = field_names(config)
    if not isinstance(node, ConfigDict) or leaf not in node or isinstance(node[leaf], ConfigDict):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"config.{name}: no such field; the nearest is config.{nearest}")
    current = node[leaf]
    try:
        node[leaf] = _convert(value, current) if isinstance(value, str) else value
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.{name}: expected {_describe(current)}, got {value!r}") from error


def _convert(text: str, current: Any) -> Any:
    if isinstance(current, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(current, tuple):
        return tuple(type(current[0])(item) for item in text.strip("()[] ").split(",") if item.strip())
    if isinstance(current, int):
        return int(text.replace("_", ""))
    return type(current)(text)


def _describe(current: Any) -> str:
    if isinstance(current, bool):
        return "true or false"
    if isinstance(current, tuple):
        return "comma-separated whole numbers"
    return {int: "a whole number", float: "a number", str: "text"}.get(type(current), type(current).__name__)


def field_names(config: ConfigDict) -> list[str]:
    """Dotted names of all leaves."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ConfigDict) else [key]
    return names


def parse_arguments(text: str, variants: Sequence[str], presets: Sequence[str] = ("cpu", "debug")) -> tuple[str, str]:
    """Reads an experiment's argument text: at most one variant and at most one preset, in any order.

    Returns:
      `(variant, preset)`; the first variant when none is named, and `""` for the paper's setting.

    Raises:
      ConfigError: an unknown or repeated word.
    """
    variant, preset = "", ""
    for word in filter(None, text.split(",")):
        if word in presets and not preset:
            preset = word
        elif word in variants and not variant:
            variant = word
        else:
            raise ConfigError(
                f"config argument {word!r}: expected at most one of {', '.join(variants)} and at most one of {', '.join(presets)}"
            )
    return variant or variants[0], preset


def to_json(config: ConfigDict) -> str:
    """The configuration as JSON text, stored beside every checkpoint."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Rebuilds a configuration from `to_json`, validated.

    Raises:
      ConfigError: the text is no configuration of this version.
    """
    try:
        stored = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"config.json: not JSON: {error}") from error
    config = default_config()

    def fill(node: ConfigDict, values: dict[str, Any], prefix: str) -> None:
        for key in sorted(set(values) ^ set(node.keys())):
            state = "unknown" if key in values else "missing"
            raise ConfigError(f"config.json: {state} field {prefix}{key}")
        for key, value in values.items():
            if isinstance(node[key], ConfigDict):
                fill(node[key], value, f"{prefix}{key}.")
            else:
                override(node, key, tuple(value) if isinstance(value, list) else value)

    fill(config, stored, "")
    return validate(config)


def config_hash(config: ConfigDict) -> str:
    """Twelve hexadecimal digits that name the configuration."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]


_CHOICES = {
    "data.name": ("multigrid", "procgen"),
    "data.procgen.game": ("bigfish", "leaper", "starpilot"),
    "tokenizer.encoder": ("impala", "patch"),
    "tokenizer.decoder": ("cnn", "patch"),
    "dynamics.name": ("flam",),
    "tokenizer.training.schedule": ("constant", "cosine"),
    "tokenizer.training.dtype": ("float32", "bfloat16"),
    "dynamics.training.schedule": ("constant", "cosine"),
    "dynamics.training.dtype": ("float32", "bfloat16"),
}
# Inclusive bounds by the last parts of a dotted name; the longest match counts. Everything else must be at least 0.
_BOUNDS: dict[str, tuple[float, float]] = {
    "mesh.data": (-1, math.inf),
    "mesh.fsdp": (-1, math.inf),
    "mesh.factor": (-1, math.inf),
    "data.frame_size": (8, 4096),
    "data.num_frames": (1, math.inf),
    "data.clip_length": (3, 10_000),
    "multigrid.grid_size": (4, 64),
    "multigrid.num_agents": (1, 16),
    "procgen.num_levels": (10, math.inf),
    "procgen.action_repeat": (1, math.inf),
    "tokenizer.patch_size": (2, 64),
    "tokenizer.channels": (1, 8192),
    "dynamics.num_factors": (1, 1024),
    "dynamics.total_action_dim": (1, 65_536),
    "dynamics.model_dim": (1, 65_536),
    "dynamics.num_blocks": (1, 64),
    "dynamics.num_heads": (1, 256),
    "dynamics.history": (1, 1024),
    "dynamics.num_iterations": (1, 16),
    "dynamics.attention_sharpness": (1e-3, 1e3),
    "dynamics.sharpness_warmup": (0, 1),
    "dynamics.kl_anneal_start": (0, 1),
    "dynamics.prediction_steps": (1, 64),
    "training.batch_size": (1, math.inf),
    "training.window": (1, 1024),
    "training.num_steps": (1, math.inf),
    "training.learning_rate": (1e-12, 10),
    "training.ema_decay": (0, 0.999999),
    "training.log_every": (1, math.inf),
    "training.eval_every": (1, math.inf),
    "training.checkpoint_every": (1, math.inf),
    "training.checkpoints_kept": (1, 1000),
    "evaluation.num_clips": (1, math.inf),
    "evaluation.batch_size": (1, math.inf),
    "evaluation.context": (1, 1024),
    "evaluation.steps": (1, 1024),
}


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every field and the fields against each other; returns the configuration, locked.

    Raises:
      ConfigError: names the first field that cannot work, its value and what was expected.
    """
    values = {name: config_dict_get(config, name) for name in field_names(config)}
    for name, value in values.items():
        if name in _CHOICES:
            _expect(value in _CHOICES[name], name, value, f"one of {', '.join(_CHOICES[name])}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            suffix = ".".join(name.split(".")[-2:])
            low, high = _BOUNDS.get(suffix, (0, math.inf))
            _expect(math.isfinite(value) and low <= value <= high, name, value, f"a number from {low:g} to {high:g}")
    levels = config.tokenizer.levels
    _expect(
        1 <= len(levels) <= 16 and all(isinstance(n, int) and 2 <= n <= 256 for n in levels) and math.prod(levels) <= 65_536,
        "tokenizer.levels",
        levels,
        "1 to 16 whole numbers of at least 2 whose product is at most 65536",
    )
    data, dynamics, evaluation = config.data, config.dynamics, config.evaluation
    size, patch = data.frame_size, config.tokenizer.patch_size
    _expect(size % patch == 0, "tokenizer.patch_size", patch, f"a divisor of data.frame_size = {size}")
    if "impala" in config.tokenizer.encoder or config.tokenizer.decoder == "cnn":
        _expect(patch & (patch - 1) == 0, "tokenizer.patch_size", patch, "a power of 2 for the impala encoder and the cnn decoder")
    if data.name == "multigrid":
        cells = data.multigrid.grid_size
        _expect(size % cells == 0, "data.frame_size", size, f"a multiple of data.multigrid.grid_size = {cells}")
        agents = data.multigrid.num_agents
        _expect(agents <= (cells - 2) ** 2 // 2, "data.multigrid.num_agents", agents, "at most half of the cells inside the wall")
        shared = data.multigrid.shared_actions
        _expect(shared != 1 and shared <= agents, "data.multigrid.shared_actions", shared, f"0, or 2 to {agents} agents")
    factors = dynamics.num_factors
    total = dynamics.total_action_dim
    _expect(total % factors == 0, "dynamics.total_action_dim", total, f"a multiple of dynamics.num_factors = {factors}")
    heads = dynamics.num_heads
    _expect(dynamics.model_dim % heads == 0, "dynamics.num_heads", heads, f"a divisor of dynamics.model_dim = {dynamics.model_dim}")
    for stage in ("tokenizer", "dynamics"):
        window = config[stage].training.window
        _expect(window <= data.clip_length, f"{stage}.training.window", window, f"at most data.clip_length = {data.clip_length}")
    window = dynamics.training.window
    _expect(window > dynamics.prediction_steps, "dynamics.training.window", window, f"more than dynamics.prediction_steps = {dynamics.prediction_steps}")
    needed = evaluation.context + evaluation.steps
    _expect(needed <= data.clip_length, "evaluation.steps", evaluation.steps, f"context + steps at most data.clip_length = {data.clip_length}")
    return config.lock()


def config_dict_get(config: ConfigDict, name: str) -> Any:
    """The value at a dotted name."""
    node: Any = config
    for part in name.split("."):
        node = node[part]
    return node


def _expect(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"config.{name} = {value!r}: expected {expected}")


__all__ = ["ConfigError", "config_hash", "default_config", "field_names", "from_json", "load_config", "override", "parse_arguments", "to_json", "validate"]
