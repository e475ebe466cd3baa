"""What is compared with what: every study as a list of cells, each of which is one training run."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flam_jax.config import Config, ConfigError, get_field, load_config
from flam_jax.messages import brief
from flam_jax.paper_model import PAPER_MODEL

PRESETS = ("cpu", "gpu", "paper", "debug")
SEEDS = (0, 1, 2)
MORE_SEEDS = (*SEEDS, 3, 4, 5, 6, 7)  # of the rows whose runs lie so far apart that the interval of three says nothing
TUNING_SEEDS = (100, 101, 102)  # none of those that are reported; the first alone in the first round
# Rows of the tables: fields of `dynamics` that make them. The first is what the others are compared with.
FLAM = {"FLAM": {"name": "flam"}}
MONOLITHIC = FLAM | {
    "Genie": {"name": "genie"},
    "AdaWorld": {"name": "adaworld"},
    "true actions": {"name": "action_conditioned"},
}
OBJECT_CENTRIC = FLAM | {"PlaySlot": {"name": "playslot"}, "SlotFormer": {"name": "slotformer"}}
ABLATIONS = FLAM | {
    "without temporal attention": {"name": "flam_recurrent"},
    "globally coupled": {"name": "flam_coupled"},
}
# The balance, which the paper's model does not have, binds slots too: what the ablations are worth without it.
NO_BALANCE = {f"{row}, no balance": {**fields, "separation_penalty": 0.0} for row, fields in ABLATIONS.items()}
# And with places in the keys of slot attention, as is usual elsewhere: without both of what may bind slots here.
PLACES_IN_KEYS = {
    row.replace(",", ", places in keys,"): {**fields, "positions": "keys"} for row, fields in NO_BALANCE.items()
}
# With everything taken out that this project adds.
PAPER = {"paper's model": PAPER_MODEL}
# The total size of the actions stays the same.
FACTORS = FLAM | {f"K = {count}": {"num_factors": count} for count in (2, 4, 8, 16)}
# One factor fewer than there are agents; about the same total size of the actions, which must be a multiple of three.
# The balance pushes two agents out of one factor, where those that act alike should meet: once with it, once without.
_THREE = {
    "cpu": {"num_factors": 3, "total_action_dim": 57},
    "gpu": {"num_factors": 3, "total_action_dim": 225},
    "debug": {"num_factors": 3, "total_action_dim": 57},
}
CORRELATED = {
    preset: {"K = 3": three, "K = 3, no balance": {**three, "separation_penalty": 0.0}}
    for preset, three in _THREE.items()
}


def _with_four(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """As the paper reads D, C and I: as many factors as there are agents, none of them to spare."""
    return {
        "K = 4" if row == "FLAM" else f"{row}, K = 4": {**fields, "num_factors": 4} for row, fields in models.items()
    }


def _by_beta(row: str, betas: Sequence[float]) -> dict[str, dict[str, Any]]:
    """A monolithic model or FLAM with other β; the models for which β grows get it as the last value."""
    return {f"{row}, β = {b:g}": {**MONOLITHIC[row], "kl_weight": b, "kl_weight_final": b} for b in betas}


# The paper's, and on to where actions cost more than they save: our errors are sums over other features than there.
BETAS = FLAM | _by_beta("FLAM", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))
# The same β does not let two models say the same: what AdaWorld's runs say must lie within the curve that β draws for
# FLAM. A codebook's size is what it can say; four agents of three actions take 81 joint ones at a time.
INFORMATION = {
    **{row: MONOLITHIC[row] for row in ("FLAM", "Genie", "AdaWorld")},
    **_by_beta("FLAM", (1e-4, 1e-3, 1e-2)),
    **_by_beta("AdaWorld", (2e-2,)),
    "Genie, 512 codes": {**MONOLITHIC["Genie"], "codebook_size": 512},
}
# Models that have fewer parts than FLAM; with such widths the parameter counts agree within 10 % (counted by a test).
_MONOLITHIC_WIDTH = {"cpu": 96, "gpu": 384, "paper": 384, "debug": 24}
WIDTH = {
    "genie": _MONOLITHIC_WIDTH,
    "adaworld": _MONOLITHIC_WIDTH,
    "playslot": {"cpu": 68, "gpu": 272, "paper": 272, "debug": 18},
    "slotformer": _MONOLITHIC_WIDTH,
    "action_conditioned": {"cpu": 140, "gpu": 560, "paper": 560, "debug": 36},
}
# Steps of a run on MultiGrid, where they are not the experiment's: a study on two cores takes hours, not days.
STEPS = {"cpu": 2_000}
# On MultiGrid β of the monolithic models grows to its last value, with which they were tuned: all of it from the start
# binds FLAM's slots, and makes AdaWorld learn late (RESULTS.md). Genie and the true actions do not use β: the field
# is as it was when they were run, so that their records hold.
_FROM_LITTLE = {model: {"kl_weight": 2e-4} for model in ("genie", "adaworld", "action_conditioned")}
GROWING = {"cpu": _FROM_LITTLE, "gpu": _FROM_LITTLE}
# Slots that start from the last frame's change their entity beyond the frames that they were trained on, when these are
# four (docs/findings.md). Windows twice as long, half as many: a step has as many frames.
LONGER_WINDOWS = {
    "cpu": {model: {"training.window": 8, "training.batch_size": 8} for model in ("playslot", "slotformer")}
}
# Steps that a model does in the time of one of FLAM's, on one core (RESULTS.md): about 2.9 against 8.7 a second.
PACE = {"cpu": {"Genie": 0.33, "AdaWorld": 0.33}}
# AdaWorld's runs lie up to 15 dB apart (but for those in FLAM's time, which end early), those of PlaySlot and of FLAM
# without temporal attention bind or do not, and with as many factors as agents FLAM may lose one; what is compared with
# them has as many.
SCATTERED = {
    ("cpu", "4agents"): (
        *("FLAM", "AdaWorld", "AdaWorld, β = 0.02", "PlaySlot", "without temporal attention"),
        *("K = 4", "PlaySlot, K = 4", "without temporal attention, K = 4"),
    )
}
# Learning rates that are tried for every model, on the validation split and with seeds that are not reported: all rates
# with one seed; of a model whose runs lie far apart the two that were best there with two seeds more, which makes no
# model's trials fewer than FLAM's; and what came out best, where it is not the experiment's own (RESULTS.md). The
# ablations come to the ceiling at three rates each, the experiment's among them.
LEARNING_RATES = {
    "cpu": (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    "gpu": (2.5e-4, 5e-4, 1e-3, 2e-3),
    "paper": (5e-5, 1e-4, 2e-4),
    "debug": (7.5e-4, 1.5e-3),
}
FINALISTS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "cpu": {"AdaWorld": (1.5e-3, 3e-3)},
    "gpu": {},
    "paper": {},
    "debug": {},
}
# At the sizes of `gpu` nothing has been tuned: the rates are a third of those of `cpu`, for every model.
TUNED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cpu": {
        "adaworld": {"training.learning_rate": 3e-3},
        "genie": {"training.learning_rate": 6e-3},
        "playslot": {"training.learning_rate": 6e-3},
        "slotformer": {"training.learning_rate": 6e-3},
    },
    "gpu": {
        "adaworld": {"training.learning_rate": 1e-3},
        "genie": {"training.learning_rate": 1e-3},
        "playslot": {"training.learning_rate": 2e-3},
        "slotformer": {"training.learning_rate": 2e-3},
    },
    "paper": {},
    "debug": {},
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: a model on a data set with a seed.

    Attributes:
      column: the data set, as the tables call it.
      row: the model, as the tables call it.
      seed: of the model; all cells of a column use one data set and one tokenizer.
      experiment: file of the experiment.
      arguments: of the experiment.
      overrides: fields of the configuration, by dotted name.
    """

    column: str
    row: str
    seed: int
    experiment: str
    arguments: str
    overrides: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where it lies below the study's workdir."""
        parts = (self.column, self.row.replace("β", "beta"), f"seed{self.seed}")
        return "/".join(re.sub(r"[^a-z0-9.]+", "_", part.lower()) for part in parts)

    def config(self, changes: Mapping[str, Any]) -> Config:
        """Its configuration, with further changes.

        Raises:
          ConfigError: a field that does not exist, or a value that cannot work.
        """
        overrides = {"seed": self.seed, **self.overrides, **changes}
        return load_config(self.experiment, self.arguments, overrides=overrides)


def multigrid(preset: str) -> list[Cell]:
    """FLAM against the monolithic models on four agents (PAPER: prediction); where their pace is known, also in the
    same time."""
    in_time = {
        f"{row} in FLAM's time": {**MONOLITHIC[row], "training.num_steps": round(pace * STEPS[preset])}
        for row, pace in PACE.get(preset, {}).items()
    }
    return _grids("4agents", MONOLITHIC | in_time, preset)


def procgen(preset: str) -> list[Cell]:
    """FLAM against the monolithic models on three games (PAPER: prediction), which the preset `gpu` does not know."""
    if preset == "gpu":
        return []
    games = ("bigfish", "leaper", "starpilot")
    return [cell for game in games for cell in _cells("experiments/procgen.py", game, MONOLITHIC, preset, SEEDS)]


def agents(preset: str) -> list[Cell]:
    """The gap to the monolithic models by the number of agents (PAPER: number of agents)."""
    variants = ("2agents", "4agents", "8agents")
    return [cell for variant in variants for cell in _grids(variant, MONOLITHIC, preset)]


def slots(preset: str) -> list[Cell]:
    """FLAM against the object-centric models on four agents, with factors to spare and with none (PAPER:
    representation)."""
    return _grids("4agents", OBJECT_CENTRIC | _with_four(OBJECT_CENTRIC), preset)


def ablations(preset: str) -> list[Cell]:
    """FLAM with one of its ideas taken out (PAPER: representation), with factors to spare and with none; then without
    the separation penalty, which is this project's, and with positions in the keys too; and the paper's model."""
    rows = ABLATIONS | _with_four(ABLATIONS) | NO_BALANCE | PLACES_IN_KEYS | PAPER | _with_four(PAPER)
    return _grids("4agents", rows, preset)


def sweeps(preset: str) -> list[Cell]:
    """FLAM by the number of factors and by β, with 16 agents (`agents` has fewer), and with two agents that always act
    alike (PAPER: number of factors)."""
    swept = _grids("4agents", FACTORS | BETAS, preset) + _grids("16agents", FLAM, preset)
    # The paper's setting has three factors there by itself.
    return swept + _grids("correlated", FLAM | CORRELATED.get(preset, {}), preset)


def information(preset: str) -> list[Cell]:
    """Prediction by what the actions say, FLAM against the monolithic models."""
    return _grids("4agents", INFORMATION, preset)


def tuning(preset: str) -> list[Cell]:
    """Every model with the same trials, scored on the validation split, those that scatter with more (ours)."""
    models = MONOLITHIC | OBJECT_CENTRIC | ABLATIONS

    def tried(rates: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Cell]:
        rows = {
            f"{row}, learning rate {rate:g}": {**models[row], "training.learning_rate": rate}
            for row in rates
            for rate in rates[row]
        }
        return _grids("4agents", rows, preset, seeds)

    every = {row: tuple(LEARNING_RATES[preset]) for row in models}
    found = tried(every, TUNING_SEEDS[:1]) + tried(FINALISTS[preset], TUNING_SEEDS[1:])
    return [dataclasses.replace(cell, overrides={**cell.overrides, "evaluation.split": "val"}) for cell in found]


STUDIES = {
    "multigrid": multigrid,
    "procgen": procgen,
    "agents": agents,
    "slots": slots,
    "ablations": ablations,
    "sweeps": sweeps,
    "information": information,
    "tuning": tuning,
}


def cells(study: str, preset: str) -> list[Cell]:
    """The cells of a study in the order in which they are run; `all` holds every cell once, but for those of `tuning`.

    Raises:
      ConfigError: there is no such study or preset.
    """
    for name, value, known in (("study", study, (*STUDIES, "all")), ("preset", preset, PRESETS)):
        if value not in known:
            raise ConfigError(f"--{name}={brief(value)}: expected one of {', '.join(known)}")
    if study == "procgen" and preset == "gpu":
        raise ConfigError("--preset=gpu: it is for MultiGrid alone; of procgen expected one of cpu, paper, debug")
    chosen = {name: make for name, make in STUDIES.items() if study == name or (study == "all" and make is not tuning)}
    by_folder = {cell.folder: cell for make in chosen.values() for cell in make(preset)}
    return list(by_folder.values())


def _grids(
    variant: str,
    rows: Mapping[str, Mapping[str, Any]],
    preset: str,
    seeds: Sequence[int] = SEEDS,
) -> list[Cell]:
    if preset in STEPS:
        rows = {row: {"training.num_steps": STEPS[preset], **fields} for row, fields in rows.items()}
    for special in (GROWING, LONGER_WINDOWS):
        of_model = special.get(preset, {})
        rows = {row: {**fields, **of_model.get(fields.get("name", "flam"), {})} for row, fields in rows.items()}
    return _cells("experiments/multigrid.py", variant, rows, preset, seeds, SCATTERED.get((preset, variant), ()))


def _cells(
    experiment: str,
    variant: str,
    rows: Mapping[str, Mapping[str, Any]],
    preset: str,
    seeds: Sequence[int],
    scattered: Sequence[str] = (),
) -> list[Cell]:
    arguments = variant if preset == "paper" else f"{variant},{preset}"
    defaults = load_config(experiment, arguments)
    if preset == "debug":  # enough to see that a study runs
        rows, seeds = dict(itertools.islice(rows.items(), 2)), seeds[:1]
    found, seen = [], []
    for row, fields in rows.items():
        model = fields.get("name", defaults.dynamics.name)
        width = {"model_dim": WIDTH[model][preset]} if model in WIDTH else {}
        fields = {"name": model, **width, **TUNED[preset].get(model, {}), **fields}
        overrides = {f"dynamics.{name}": value for name, value in fields.items()}
        changes = {name: value for name, value in overrides.items() if get_field(defaults, name) != value}
        if changes not in seen:
            seen.append(changes)  # a row that would be another one once more is left out
            of_row = MORE_SEEDS if row in scattered else seeds
            found += [Cell(variant, row, seed, experiment, arguments, overrides) for seed in of_row]
    # Every row once before the next seed: tables fill evenly.
    return sorted(found, key=lambda cell: cell.seed)


__all__ = ["STUDIES", "Cell", "cells"]
