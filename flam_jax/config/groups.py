"""The fields of the configuration, in groups by the part that reads them. Defaults are the paper's where it states them
(PAPER: settings known). The fields of a data set stand in its folder (`data_pipelines`).
"""

from typing import Any

from data_pipelines.fields import Field, Group, choice, flag, folder, number, size, whole, whole_numbers
from data_pipelines.registry import DATASETS, definition
from flam_jax.models import MODELS

_SEED = (0, 2**32 - 1)


def _training(num_steps: int, batch_size: int, window: int) -> dict[str, Any]:
    """Fields of one training stage; every stage is run by the same loop."""
    return dict(
        num_steps=whole(num_steps, "updates", 1),
        batch_size=whole(batch_size, "windows of a step, over all devices", 1, 1_000_000),
        accumulate=whole(1, "parts of a batch taken in turn: so much less memory, a little slower", 1, 65_536),
        rematerialize=flag(False, "compute activations again for the gradient: less memory, slower", decides=False),
        window=whole(window, "consecutive frames of an example", 1, 1024),
        optimizer=choice(("adamw", "muon"), "muon: momentum of kernels is orthogonalized; what else there is by AdamW"),
        learning_rate=number(
            1e-4, "after the warm-up; the size of AdamW's first update, and of all of Muon's", 1e-12, 10
        ),
        schedule=choice(("constant", "cosine"), "of the learning rate, after a linear warm-up"),
        warmup_steps=whole(0, "updates in which the learning rate grows"),
        weight_decay=number(0, "of kernels", 0, 10),
        clip_norm=number(1, "global gradient norm; 0 turns clipping off"),
        dtype=choice(("float32", "bfloat16"), "of computations; parameters are float32"),
        on_nonfinite=choice(("stop", "skip"), "what to do about a loss or gradient that is not finite", decides=False),
        log_every=whole(100, "updates between logged values", 1, decides=False),
        eval_every=whole(2_000, "updates between validations, with pictures", 1, decides=False),
        checkpoint_every=whole(2_000, "updates between checkpoints", 1, decides=False),
        checkpoints_kept=whole(2, "newest checkpoints that are kept", 1, 1000, decides=False),
    )


def _mesh_axis(default: int, meaning: str) -> Field:
    return whole(default, f"{meaning}; -1: those that are left", -1, 1_000_000, decides=False)


MESH = dict(
    data=_mesh_axis(-1, "devices that share out examples"),
    fsdp=_mesh_axis(1, "devices that share out examples and parameters"),
    factor=_mesh_axis(1, "devices that share out factors and patches"),
)


def data_group() -> Group:
    """Fields of all data sets, and a group for each of `data_pipelines.registry.DATASETS`."""
    return dict(
        name=choice(tuple(DATASETS), "the data set"),
        path=folder("data", "folder of the data sets", decides=False),
        seed=whole(0, "of what is generated", *_SEED),
        frame_size=size((128, 128), "height and width of a frame in pixels; one number for a square", 16, 4096),
        num_frames=whole(100_000, "frames over all splits", 1, 100_000_000),
        clip_length=whole(32, "consecutive frames of one episode in a record", 3, 10_000),
        generate_workers=whole(0, "processes that make records; 0: one per core", 0, 1024, decides=False),
        loader_workers=whole(0, "processes that read; 0: threads of this process", 0, 256, decides=False),
        on_corrupt=choice(
            ("stop", "skip"), "of a record that cannot be read: end, or take another in its place", decides=False
        ),
        **{name: definition(name).fields for name in DATASETS},
    )


TOKENIZER = dict(
    restore_from=folder("", "workdir of a run whose trained tokenizer is taken; empty: one is trained"),
    encoder=choice(
        ("impala", "patch", "magvit", "precomputed"),
        "IMPALA's residual network; a perceptron on every patch by itself; MAGVIT-v2's, for real video; or none: the"
        " records bring features",
    ),
    decoder=choice(
        ("cnn", "patch", "magvit"), "a residual network, a perceptron on every code by itself, or MAGVIT-v2's"
    ),
    temporal_kernel=whole(1, "frames that a convolution of the magvit encoder sees, up to the current one", 1, 3),
    patch_size=whole(8, "pixels per side that one code stands for", 2, 64),
    channels=whole(128, "width of encoder and decoder", 1, 8192),
    num_res_blocks=whole(2, "residual blocks of a scale, or layers of the perceptrons", 0, 64),
    levels=whole_numbers((4, 4, 4, 4, 4), "levels of every feature channel (finite scalar quantization); all 2: LFQ"),
    patches_share=number(
        1, "share of a window's patches that a step draws; below 1: patch encoder and decoder alone", 1e-3, 1
    ),
    change_weight=number(10, "extra weight of pixels that change within the window"),
    consistency_weight=number(0, "of features that change where pixels do not"),
    entropy_weight=number(0, "of the entropy of a position's codes less that of the batch's, in nats (LFQ)"),
    adversarial_weight=number(
        0, "of the adversarial loss; at 1 its gradient by the frames is the image loss's size", 0, 100
    ),
    adversarial_start=number(0.3, "share of training from which there is an adversarial loss", 0, 1),
    lpips_weight=number(
        1, "of LPIPS between frames and reconstruction, where evaluation.weights has its network", absent=0.0
    ),
    training=_training(num_steps=100_000, batch_size=64, window=2),
)

DYNAMICS: dict[str, Field | Group] = dict(
    # The name of the model comes first, see `all_groups`.
    restore_from=folder("", "workdir of a run whose trained dynamics are gone on from; empty: they begin anew"),
    num_factors=whole(4, "K; models with one action for the scene have one", 1, 1024),
    total_action_dim=whole(256, "size of the latent action, shared out evenly over the factors", 1, 65_536),
    model_dim=whole(256, "size of slots and of all streams", 1, 65_536),
    num_blocks=whole(2, "blocks of the context stream, of a factor's stream, and of the aggregator", 1, 64),
    num_heads=whole(8, "heads of every attention but slot attention", 1, 256),
    history=whole(5, "frames that temporal attention sees, the current one included", 1, 1024),
    num_iterations=whole(3, "of slot attention", 1, 16),
    positions=choice(
        ("readout", "keys", "features"),
        "what knows where a patch lies: what slots read last; the keys too; or the features, as in slot attention",
    ),
    cosine_attention=flag(True, "logits of slot attention are cosines; otherwise dot products"),
    implicit_gradient=flag(True, "gradients pass through the last iteration of slot attention alone"),
    local_context=flag(False, "what slots read of a patch has its surroundings and what changed in it"),
    aggregator=choice(
        ("additive", "local", "cross_attention"),
        "what slots write into a patch depends on its position; on its surroundings too; or on its content (paper)",
    ),
    reconstruction_weight=number(
        0, "of the error of a frame's features rendered from its slots; above 0 a renderer helps the aggregator", 0, 100
    ),
    inverse_frequency_power=number(1, "of what slots read: at 1 every content of a frame counts alike", 0, 2),
    inverse_temperature=number(4, "factor on the logits of slot attention", 1e-3, 1e3),
    slot_anneal_end=number(0.6, "share of training at which slot attention has its full inverse temperature", 0, 1),
    inverse_temperature_start=number(0.25, "share of the inverse temperature at the first step", 1e-3, 1),
    inverse_temperature_jitter=number(0.5, "standard deviation of its log-normal noise until then", 0, 10),
    query_noise=number(0.3, "standard deviation of the queries' noise at the first step; falls to 0 until then"),
    separation_penalty=number(0, "how much less a slot takes of what is unlike the rest of what it holds", 0, 10),
    codebook_size=whole(8, "codes of models whose actions have a codebook", 2, 65_536),
    kl_weight=number(2e-4, "beta, on squared error and KL that are summed over features and factors"),
    kl_weight_final=number(2e-4, "to which beta goes, geometrically"),
    kl_anneal_start=number(0.3, "share of training from which it goes there; it arrives at the end", 0, 1),
    prediction_steps=whole(5, "frames predicted in a row in training", 1, 64),
    prediction_steps_start=number(0, "share of training before which only one frame is predicted", 0, 1),
    copy_paste=whole(
        0,
        "copies of every training clip with some entities taken out and some of another clip put in; of a camera that"
        " stands still",
        0,
        1_000,
    ),
    cache_codes=flag(False, "train from codes that are computed once, not from frames"),
    training=_training(num_steps=200_000, batch_size=32, window=10),
)

EVALUATION = dict(
    split=choice(("test", "val"), "clips that are scored; val for choices that are still being made"),
    num_clips=whole(200, "clips that are rolled out", 1),
    batch_size=whole(20, "clips at once", 1, 1_000_000),
    context=whole(5, "true frames before the rollout starts", 1, 1024),
    steps=whole(10, "rolled-out frames", 1, 1024),
    every=whole(0, "updates of the dynamics between evaluations on the validation split; 0: none", decides=False),
    clips_in_training=whole(20, "clips that are rolled out in these", 1, decides=False),
    probe_clips=whole(200, "clips of a split on which linear probes are fitted", 1),
    num_pictures=whole(4, "rollouts shown in the report", 0, 1000, decides=False),
    weights=folder("weights", "folder with the networks of LPIPS and FVD; each is used where it is", decides=False),
    lpips_backbone=choice(("alex", "vgg"), "network of LPIPS"),
)


def all_groups() -> Group:
    """The whole tree."""
    return dict(
        seed=whole(0, "of parameters, order of batches and noise; the data have their own", *_SEED),
        mesh=MESH,
        data=data_group(),
        tokenizer=TOKENIZER,
        dynamics=dict(name=choice(tuple(MODELS), "the model"), **DYNAMICS),
        evaluation=EVALUATION,
    )


__all__ = ["all_groups"]
