"""The schema of the configuration: every field with its default, its bounds, and what must fit together."""

import functools
import math
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from flam_jax.footprint import least_memory
from flam_jax.messages import brief

if TYPE_CHECKING:
    Config = Any  # static checkers cannot know the types of its fields
else:
    Config = ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot work. The message names the field, its value and what was expected."""


def _training(**changes: Any) -> Config:
    """Fields of one training stage; both stages are run by the same trainer."""
    training = ConfigDict(
        dict(
            num_steps=100_000,
            batch_size=32,  # windows per step, over all devices
            accumulate=1,  # parts of a batch taken one after the other: so much less memory, a little slower
            rematerialize=False,  # compute activations again for the gradient: less memory, about a third more work
            window=2,  # consecutive frames per example
            learning_rate=1e-4,
            schedule="constant",  # constant | cosine; both after a linear warm-up
            warmup_steps=0,
            weight_decay=0.0,
            clip_norm=1.0,  # global gradient norm; 0 turns clipping off
            ema_decay=0.0,  # 0 turns the moving average off; else evaluation uses the averaged parameters
            dtype="float32",  # compute type: float32 | bfloat16; parameters stay float32
            on_nonfinite="stop",  # a loss or gradient that is not finite: stop | skip the update, and count it
            log_every=100,
            eval_every=2_000,  # validation loss and pictures
            checkpoint_every=2_000,
            checkpoints_kept=2,
        )
    )
    training.update(changes)
    return training


def default_config() -> Config:
    """The whole tree with the paper's settings where it states them (PAPER: settings known)."""
    return ConfigDict(
        dict(
            seed=0,  # parameters, batch order and noise; the data have their own
            mesh=dict(data=-1, fsdp=1, factor=1),  # devices per mesh axis; -1 takes the devices that are left
            data=dict(
                name="multigrid",  # multigrid | procgen | nuplan
                path="data",  # folder of the generated data sets
                seed=0,
                frame_size=128,  # pixels, square frames
                num_frames=100_000,  # over all splits
                clip_length=32,  # consecutive frames of one episode per record
                generate_workers=0,  # processes that render; 0 means one per core
                loader_workers=0,  # processes that read; 0 reads in threads of the training process
                on_corrupt="stop",  # stop | skip: of a record that cannot be read, end or take another in its place
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
                restore_from="",  # workdir of a run whose trained tokenizer is taken; empty: one is trained
                encoder="impala",  # impala | patch
                decoder="cnn",  # cnn | patch
                patch_size=8,  # pixels per side that one code stands for
                channels=128,
                num_res_blocks=2,  # per scale
                levels=(4, 4, 4, 4, 4),  # finite scalar quantization: levels per feature channel
                # Of the patches of a window, those that a step trains on, drawn one by one without regard to time. Less
                # than 1 needs patch encoder and decoder, and leaves change_weight and consistency_weight no meaning.
                patches_share=1.0,
                rarity=0.4,  # exponent of the draw: 0 gives every patch the same chance, 1 every content
                change_weight=10.0,  # extra weight of pixels that change within the window
                l1_weight=1.0,
                l2_weight=1.0,
                gradient_weight=0.0,  # L1 between the spatial gradients of the frames
                consistency_weight=0.0,  # features must not change where pixels do not
                training=_training(num_steps=100_000, batch_size=64, window=2),
            ),
            dynamics=dict(
                # flam | genie | adaworld | playslot | slotformer | action_conditioned | flam_recurrent | flam_coupled
                name="flam",
                num_factors=4,  # K; monolithic models (genie, adaworld) have one
                total_action_dim=256,  # shared out evenly over the factors
                model_dim=256,
                num_blocks=2,  # per transformer: context stream, per-factor stream, aggregator
                num_heads=8,
                history=5,  # frames that temporal attention sees, the current one included
                num_iterations=3,  # of slot attention
                # How much a content counts in what a slot reads: n patches that look alike weigh n**-power each. At 1
                # every content of a frame counts the same, at 0 every patch.
                inverse_frequency_power=1.0,
                inverse_temperature=4.0,  # of the softmax over slots
                cosine_attention=True,  # logits are cosines times the root of d; false: q k / root of d
                implicit_gradient=True,  # differentiate the last iteration of slot attention only
                # Annealing of slot attention (dynamics/schedules.py): the inverse temperature grows to its full value,
                # its jitter and the noise of the queries end.
                slot_anneal_end=0.6,  # share of training at which annealing ends; 0: no annealing
                inverse_temperature_start=0.25,  # fraction of the full value at step 0
                inverse_temperature_jitter=0.5,  # log-normal noise per example (standard deviation)
                query_noise=0.3,  # Gaussian noise of the slots' queries, per example (standard deviation)
                separation_penalty=0.0,  # logit penalty for contents unlike the others of a slot (dynamics/grouping.py)
                # Where positions enter slots: readout (after the last iteration) | keys (also) | features (of the
                # patches, before keys and values).
                positions="readout",
                local_context=False,  # slots see neighbouring patches and the change since the last frame
                aggregator="additive",  # additive | local | cross_attention
                codebook_size=8,  # of genie and playslot: how many actions there are
                # Of playslot and slotformer: share of training in which they learn their slots; these and, in the
                # rest, the dynamics have the schedule of `training` each.
                slot_training_share=0.5,
                kl_weight=2e-4,  # beta, on summed squared error and summed KL
                kl_weight_final=2e-4,  # beta is annealed geometrically to this value
                kl_anneal_start=0.3,  # share of training at which annealing starts; it ends at 1
                prediction_steps=5,
                prediction_steps_start=0.0,  # share of training before which only one step is predicted
                quantize_predictions=True,  # before predicted features are fed back or decoded
                cache_codes=False,  # train from codes computed once instead of from frames
                training=_training(num_steps=200_000, batch_size=32, window=10),
            ),
            evaluation=dict(
                split="test",  # clips that are scored: test | val, for choices that are still being made
                num_clips=200,  # clips that are rolled out
                batch_size=20,
                context=5,  # true frames before the rollout starts
                steps=10,  # rolled-out frames
                probe_clips=200,  # clips per split of the linear probes
                num_pictures=4,  # rollouts shown in the report
                # Folder with lpips_alex.npz, lpips_vgg.npz and i3d.npz (README: what is measured). LPIPS and FVD are
                # computed where the file of theirs is there.
                weights="weights",
                lpips_backbone="alex",  # alex | vgg
            ),
        )
    )


@functools.cache
def defaults() -> Config:
    """As `default_config`, made once, to read from: whoever changes it changes it for all."""
    return default_config().lock()


CHOICES = {
    "data.name": ("multigrid", "procgen", "nuplan"),
    "data.on_corrupt": ("stop", "skip"),
    "data.procgen.game": ("bigfish", "leaper", "starpilot"),
    "tokenizer.encoder": ("impala", "patch"),
    "tokenizer.decoder": ("cnn", "patch"),
    "dynamics.name": (
        "flam",
        "genie",
        "adaworld",
        "playslot",
        "slotformer",
        "action_conditioned",
        "flam_recurrent",
        "flam_coupled",
    ),
    "dynamics.positions": ("readout", "keys", "features"),
    "dynamics.aggregator": ("additive", "local", "cross_attention"),
    "tokenizer.training.schedule": ("constant", "cosine"),
    "tokenizer.training.dtype": ("float32", "bfloat16"),
    "tokenizer.training.on_nonfinite": ("stop", "skip"),
    "dynamics.training.on_nonfinite": ("stop", "skip"),
    "dynamics.training.schedule": ("constant", "cosine"),
    "dynamics.training.dtype": ("float32", "bfloat16"),
    "evaluation.split": ("test", "val"),
    "evaluation.lpips_backbone": ("alex", "vgg"),
}
# Inclusive bounds by the last two parts of a dotted name, and of everything else: more would overflow somewhere.
_OTHER_BOUNDS = (0, 1_000_000_000)
_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "mesh.data": (-1, 1_000_000),
    "mesh.fsdp": (-1, 1_000_000),
    "mesh.factor": (-1, 1_000_000),
    "data.seed": (0, 2**32 - 1),
    "data.frame_size": (16, 4096),
    "data.generate_workers": (0, 1024),
    "data.loader_workers": (0, 256),
    "data.num_frames": (1, 100_000_000),
    "data.clip_length": (3, 10_000),
    "multigrid.grid_size": (4, 64),
    "multigrid.num_agents": (1, 16),
    "procgen.num_levels": (10, 2**31 - 1),
    "procgen.action_repeat": (1, 1_000_000_000),
    "tokenizer.patch_size": (2, 64),
    "tokenizer.channels": (1, 8192),
    "tokenizer.patches_share": (1e-3, 1),
    "tokenizer.rarity": (0, 2),
    "tokenizer.num_res_blocks": (0, 64),
    "dynamics.num_factors": (1, 1024),
    "dynamics.total_action_dim": (1, 65_536),
    "dynamics.model_dim": (1, 65_536),
    "dynamics.num_blocks": (1, 64),
    "dynamics.num_heads": (1, 256),
    "dynamics.history": (1, 1024),
    "dynamics.num_iterations": (1, 16),
    "dynamics.codebook_size": (2, 65_536),
    "dynamics.slot_training_share": (0, 1),
    "dynamics.inverse_temperature": (1e-3, 1e3),
    "dynamics.slot_anneal_end": (0, 1),
    "dynamics.inverse_temperature_start": (1e-3, 1),
    "dynamics.inverse_temperature_jitter": (0, 10),  # an exponent
    "dynamics.inverse_frequency_power": (0, 2),
    "dynamics.separation_penalty": (0, 10),
    "dynamics.kl_anneal_start": (0, 1),
    "dynamics.prediction_steps": (1, 64),
    "dynamics.prediction_steps_start": (0, 1),
    "training.batch_size": (1, 1_000_000),
    "training.accumulate": (1, 65_536),
    "training.window": (1, 1024),
    "training.num_steps": (1, 1_000_000_000),
    "training.learning_rate": (1e-12, 10),
    "training.ema_decay": (0, 0.999999),
    "training.log_every": (1, 1_000_000_000),
    "training.eval_every": (1, 1_000_000_000),
    "training.checkpoint_every": (1, 1_000_000_000),
    "training.checkpoints_kept": (1, 1000),
    "training.warmup_steps": (0, 1_000_000_000),
    "training.weight_decay": (0, 10),
    "evaluation.num_clips": (1, 1_000_000_000),
    "evaluation.batch_size": (1, 1_000_000),
    "evaluation.context": (1, 1024),
    "evaluation.steps": (1, 1024),
    "evaluation.probe_clips": (1, 1_000_000_000),
    "evaluation.num_pictures": (0, 1000),
}
_FOLDERS = ("data.path", "tokenizer.restore_from", "evaluation.weights")
_MOST_CLIP_BYTES = 2**30  # a record; the format of the files ends at twice that
_MOST_BYTES = 2**44  # of one array or kind of parameters, over all devices: no machine has that much


def validate(config: Config) -> Config:
    """Checks every field and the fields against each other; returns the configuration, locked.

    Raises:
      ConfigError: names the first field that cannot work, its value and what was expected.
    """
    known = field_names(defaults())
    for name in sorted(set(field_names(config)) ^ set(known)):
        raise ConfigError(f"config.{name}: {'a field is missing' if name in known else 'no such field'}")
    for name in known:
        _check_field(name, get_field(config, name))
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
        steps = training.num_steps
        _expect(
            training.warmup_steps < steps,
            f"{field}.warmup_steps",
            training.warmup_steps,
            f"less than {field}.num_steps = {steps}",
        )
    check_memory(config, _MOST_BYTES)
    return config.lock()


def check_memory(config: Config, available: int) -> None:
    """Refuses what does not fit into so many bytes, by rough lower bounds: what passes may still be too much.

    Raises:
      ConfigError: names the field that asks for more.
    """
    for name, need in least_memory(config).items():
        expected = f"to fit into {available / 2**30:,.0f} GiB of memory, it takes {need / 2**30:,.0f} GiB or more"
        _expect(need <= available, name, get_field(config, name), expected)


def field_names(config: Config) -> list[str]:
    """Dotted names of all leaves."""
    names = []
    for key, value in config.items():
        names += [f"{key}.{name}" for name in field_names(value)] if isinstance(value, ConfigDict) else [str(key)]
    return names


def get_field(config: Config, name: str) -> Any:
    """The value at a dotted name."""
    node: Any = config
    for part in name.split("."):
        node = node[part]
    return node


def bounds(name: str) -> tuple[int | float, int | float]:
    """The least and the greatest value of a field that holds a number."""
    return _BOUNDS.get(".".join(name.split(".")[-2:]), _OTHER_BOUNDS)


def describe_type(default: Any) -> str:
    """In words, what a field with this default takes."""
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, tuple):
        return "comma-separated whole numbers"
    return {int: "a whole number", float: "a number", str: "text"}[type(default)]


def _check_field(name: str, value: Any) -> None:
    default = get_field(defaults(), name)
    right = isinstance(value, (int, float) if isinstance(default, float) else type(default))
    _expect(right and isinstance(value, bool) == isinstance(default, bool), name, value, describe_type(default))
    if name in CHOICES:
        _expect(value in CHOICES[name], name, value, f"one of {', '.join(CHOICES[name])}")
    elif name in _FOLDERS:
        _expect(is_folder_name(value) or (value == default == ""), name, value, "a folder")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = bounds(name)
        _expect(low <= value <= high, name, value, f"a number from {low:.12g} to {high:.12g}")


def steps_of(span: tuple[float, float], num_steps: int) -> tuple[int, int]:
    """The first step of a span of training, and the one after its last: those with `first <= step / num_steps < last`.

    Args:
      span: shares of the training between which something is trained.
      num_steps: of the whole training.
    """
    first, last = (math.ceil(round(share * num_steps, 6)) for share in span)  # 0.7 of 10 steps would be 8
    return first, last


def is_folder_name(path: str) -> bool:
    """Whether a system takes it as the path of a folder, with room for the paths of what lies in it."""
    parts = path.encode(errors="replace").split(b"/")
    return bool(path.strip()) and "\0" not in path and len(path) <= 1024 and max(map(len, parts)) <= 255


def _check_mesh(config: Config) -> None:
    sizes = dict(config.mesh)
    for axis, size in sizes.items():
        _expect(size != 0, f"mesh.{axis}", size, "a number of devices, or -1 for those that are left")
    free = [f"mesh.{axis}" for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"config.{free[0]} and config.{free[1]} are both -1: expected at most one -1 in config.mesh")


def _check_data(config: Config) -> None:
    data = config.data
    least = 10 * data.clip_length
    _expect(data.num_frames >= least, "data.num_frames", data.num_frames, f"10 clips, that is {least} frames, or more")
    clip = data.clip_length * data.frame_size**2 * 3
    expected = f"less, a clip of {clip / 2**30:.1f} GiB does not fit into a record: at most 1 GiB"
    _expect(clip <= _MOST_CLIP_BYTES, "data.clip_length", data.clip_length, expected)
    if data.name == "multigrid":
        cells, agents, shared = data.multigrid.grid_size, data.multigrid.num_agents, data.multigrid.shared_actions
        size = data.frame_size
        _expect(size % cells == 0, "data.frame_size", size, f"a multiple of data.multigrid.grid_size = {cells}")
        room = (cells - 2) ** 2 // 2
        _expect(
            agents <= room, "data.multigrid.num_agents", agents, f"at most {room}, half of the cells inside the wall"
        )
        fits = shared != 1 and shared <= agents
        _expect(fits, "data.multigrid.shared_actions", shared, f"0, or from 2 to num_agents = {agents}")


def _check_tokenizer(config: Config) -> None:
    tokenizer, size = config.tokenizer, config.data.frame_size
    levels, patch = tokenizer.levels, tokenizer.patch_size
    fits = 1 <= len(levels) <= 16 and all(type(n) is int and 2 <= n <= 256 for n in levels)
    expected = "1 to 16 whole numbers from 2 to 256 whose product is below 2^31"
    _expect(fits and math.prod(levels) < 2**31, "tokenizer.levels", levels, expected)
    _expect(size % patch == 0, "tokenizer.patch_size", patch, f"a divisor of data.frame_size = {size}")
    if tokenizer.encoder == "impala" or tokenizer.decoder == "cnn":
        power = patch & (patch - 1) == 0
        _expect(power, "tokenizer.patch_size", patch, "a power of 2 for the impala encoder and the cnn decoder")
    if tokenizer.patches_share < 1:
        local = tokenizer.encoder == tokenizer.decoder == "patch"
        expected = "1, unless encoder and decoder are patch"
        _expect(local, "tokenizer.patches_share", tokenizer.patches_share, expected)
    both = (tokenizer.l1_weight, tokenizer.l2_weight)
    _expect(sum(both) > 0, "tokenizer.l1_weight", both[0], "more than 0 when tokenizer.l2_weight is 0")


def _check_dynamics(config: Config) -> None:
    dynamics = config.dynamics
    factors, total = dynamics.num_factors, dynamics.total_action_dim
    _expect(total % factors == 0, "dynamics.total_action_dim", total, f"a multiple of dynamics.num_factors = {factors}")
    heads, dim = dynamics.num_heads, dynamics.model_dim
    _expect(dim % heads == 0, "dynamics.num_heads", heads, f"a divisor of dynamics.model_dim = {dim}")
    window, passes = dynamics.training.window, dynamics.prediction_steps
    _expect(window > passes, "dynamics.training.window", window, f"more than dynamics.prediction_steps = {passes}")
    if dynamics.name in ("playslot", "slotformer"):  # slots, then the dynamics on them: each warms up
        steps, warmup = dynamics.training.num_steps, dynamics.training.warmup_steps
        of_slots, _ = steps_of((dynamics.slot_training_share, 1.0), steps)
        spans = [count for count in (of_slots, steps - of_slots) if count]  # none: what is not trained
        share = f"dynamics.slot_training_share = {dynamics.slot_training_share:g}"
        expected = f"less than {min(spans)}, the shorter part of {steps} steps with {share}"
        _expect(warmup < min(spans), "dynamics.training.warmup_steps", warmup, expected)
    known = dynamics.name != "action_conditioned" or config.data.name in ("multigrid", "procgen")
    _expect(known, "dynamics.name", dynamics.name, f"another model: the actions of {config.data.name} are not known")


def _check_evaluation(config: Config) -> None:
    evaluation, clip = config.evaluation, config.data.clip_length
    context, steps = evaluation.context, evaluation.steps
    room = f"context + steps = {context + steps} to be at most data.clip_length = {clip}"
    _expect(context + steps <= clip, "evaluation.steps", steps, room)


def _expect(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"config.{name} = {brief(value)}: expected {expected}")


__all__ = [
    "CHOICES",
    "Config",
    "ConfigError",
    "bounds",
    "check_memory",
    "default_config",
    "defaults",
    "describe_type",
    "field_names",
    "get_field",
    "is_folder_name",
    "steps_of",
    "validate",
]
