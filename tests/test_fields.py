"""Every field of the configuration that decides a result has a user."""

import itertools
import re
from collections.abc import Iterator

from flam_jax.config import (
    Config,
    ConfigError,
    describe_arguments,
    experiments,
    field_names,
    fields,
    get_field,
    load_config,
)
from flam_jax.studies.definitions import PRESETS, STUDIES, cells
from tests.documents import tracked

# What the paper states a value for.
STATED = {
    "training.clip_norm": "1.0",
    "training.weight_decay": "0",
    "data.multigrid.grid_size": "8",
    "evaluation.steps": "10 predicted frames",
}
OF_THE_USER = {
    "data.seed": "other data of the same kind",
    "data.sprites.num_sprites": "how many there are",
    "data.sprites.speed": "how fast they are",
    "data.sprites.persistence": "how long they keep an action",
    "dynamics.restore_from": "which model is gone on from",
    "data.video_folder.source": "whose video it is",
    "data.lerobot.source": "the same",
    "data.nuplan.source": "the same",
    "data.feature_folder.source": "whose features they are",
    "data.feature_folder.frame_rate": "how fast things move in it",
    "data.feature_folder.stride": "the same",
    "data.feature_folder.clip_step": "how many clips are wanted",
    "data.video_folder.frame_rate": "how fast things move in it",
    "data.video_folder.stride": "the same",
    "data.video_folder.fit": "its shape",
    "data.video_folder.cut_threshold": "how it was cut",
    "data.video_folder.still_seconds": "how much of it is at rest",
    "data.lerobot.camera": "its cameras",
    "data.lerobot.action": "its names",
    "data.lerobot.state": "the same",
    "data.lerobot.fit": "its shape",
    "data.lerobot.clip_step": "how long its episodes are",
    "data.nuplan.tracks": "how many road users are kept",
    "data.nuplan.stride": "how fast things move in it",
    "data.nuplan.fit": "its shape",
    "data.nuplan.clip_step": "how many clips are wanted",
    "data.procgen.num_levels": "in how many levels is played",
    "data.procgen.action_repeat": "how the random policy plays",
}


def test_every_field_that_decides_a_result_is_set_somewhere() -> None:
    """By an experiment, a study, or a command of the documents; a field of training in one of the stages."""
    known = fields()
    used = {*STATED, *OF_THE_USER}
    for config in (*of_experiments(), *of_studies()):
        used |= {short(name) for name in field_names(config) if get_field(config, name) != known[name].default}
    text = "\n".join(file.read_text(encoding="utf-8") for file in tracked("*.md"))
    used |= {short(name) for name in re.findall(r"(?:--config\.|`)([a-z_.]+)=", text)}
    assert not {name for name, field in known.items() if field.decides and short(name) not in used}


def short(name: str) -> str:
    """Without the stage for the fields that all stages have."""
    return re.sub(r"^\w+\.training\.", "training.", name)


def of_experiments() -> Iterator[Config]:
    for file in experiments():
        _, variants, presets = describe_arguments(file)
        for words in itertools.product(("", *variants), ("", *presets)):
            yield load_config(file, ",".join(filter(None, words)))


def of_studies() -> Iterator[Config]:
    for study, preset in itertools.product(STUDIES, PRESETS):
        try:
            chosen = cells(study, preset)
        except ConfigError:  # a study without this preset
            continue
        # Other seeds have no other fields.
        yield from (cell.config({}) for cell in chosen if cell.seed == chosen[0].seed)
