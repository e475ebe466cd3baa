"""What is compared with what: every study as a list of cells, each of which is one training run."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flam_jax.config import PAPER_MODEL, Config, ConfigError, get_field, load_config
from flam_jax.messages import short_repr

PRESETS = ("cpu", "gpu", "paper", "debug")
SEEDS = (0, 1, 2)
MORE_SEEDS = (*SEEDS, 3, 4, 5, 6, 7)  # of the rows whose runs lie so far apart that the interval of three says nothing
TUNING_SEEDS = (100, 101, 102)  # none of those that are reported; the first alone in the first round


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: a model under some conditions.

    Attributes:
      key: names the row in folders and records; lower case, and never changed.
      model: the model, as tables call it.
      fields: of `dynamics` that make it.
      condition: in what it differs from the model's own row, as tables call it; "" for that row.
      compared_with: key of the row of the same conditions that it is compared with.
      series: key of the row from which it differs on `axis` alone; its own key for a row that starts a series.
      axis: name in `AXES`, or `codes`; "" for a row that starts a series.
    """

    key: str
    model: str
    fields: Mapping[str, Any]
    condition: str = ""
    compared_with: str | None = "flam"
    series: str = ""
    axis: str = ""

    def __post_init__(self) -> None:
        if not self.series:
            object.__setattr__(self, "series", self.key)

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.model}, {self.condition}" if self.condition else self.model

    def varied(self, key: str, condition: str, fields: Mapping[str, Any], **changes: Any) -> "Row":
        """The same model under another condition: a series of its own, unless `changes` say otherwise."""
        changes = {"series": "", "axis": ""} | changes
        joined = f"{self.condition}, {condition}" if self.condition else condition
        return dataclasses.replace(self, key=key, condition=joined, fields={**self.fields, **fields}, **changes)


@dataclasses.dataclass(frozen=True)
class Axis:
    """A field on which rows of a series differ, and by which charts show them."""

    title: str
    x_name: str
    field: str
    logarithmic: bool = False


AXES = {
    "factors": Axis("PSNR mean, dB, by the number of factors", "factors", "dynamics.num_factors"),
    "beta": Axis("PSNR mean, dB, by β", "β", "dynamics.kl_weight_final", logarithmic=True),
    "learning_rate": Axis(
        "PSNR mean, dB, by the learning rate", "learning rate", "dynamics.training.learning_rate", logarithmic=True
    ),
}
# Columns of studies that differ in the number of agents.
AGENTS = {"2agents": 2, "4agents": 4, "8agents": 8, "16agents": 16}

FLAM = Row("flam", "FLAM", {"name": "flam"}, compared_with=None)
GENIE = Row("genie", "Genie", {"name": "genie"})
ADAWORLD = Row("adaworld", "AdaWorld", {"name": "adaworld"})
TRUE_ACTIONS = Row("true_actions", "true actions", {"name": "action_conditioned"})
PLAYSLOT = Row("playslot", "PlaySlot", {"name": "playslot"})
SLOTFORMER = Row("slotformer", "SlotFormer", {"name": "slotformer"})
RECURRENT = Row("without_temporal_attention", "without temporal attention", {"name": "flam_recurrent"})
COUPLED = Row("globally_coupled", "globally coupled", {"name": "flam_coupled"})
# With nothing of what this project adds.
PAPER = Row("paper_s_model", "paper's model", PAPER_MODEL)

MONOLITHIC = (FLAM, GENIE, ADAWORLD, TRUE_ACTIONS)
OBJECT_CENTRIC = (FLAM, PLAYSLOT, SLOTFORMER)
ABLATIONS = (FLAM, RECURRENT, COUPLED)


def _under(rows: Iterable[Row], key: str, condition: str, fields: Mapping[str, Any]) -> tuple[Row, ...]:
    """Rows under another condition, compared with FLAM under it, and FLAM with FLAM as it is."""
    return tuple(
        row.varied(f"{row.key}_{key}", condition, fields, compared_with="flam" if row is FLAM else f"flam_{key}")
        for row in rows
    )


# The separation penalty, which the paper's model does not have, binds slots too: the ablations without it.
NO_PENALTY = _under(ABLATIONS, "no_balance", "no separation penalty", {"separation_penalty": 0.0})
# And with positions in the keys of slot attention, as is usual elsewhere: without both of what may bind slots here.
POSITIONS_IN_KEYS = _under(
    ABLATIONS,
    "places_in_keys_no_balance",
    "positions in keys, no separation penalty",
    {"separation_penalty": 0.0, "positions": "keys"},
)


def _of_factors(count: int) -> Row:
    """FLAM with another number of factors; the total size of the actions stays the same."""
    return FLAM.varied(
        f"k_{count}", f"K = {count}", {"num_factors": count}, compared_with="flam", series="flam", axis="factors"
    )


FACTORS = tuple(_of_factors(count) for count in (2, 4, 8, 16))
# One factor fewer than there are agents; about the same total size of the actions, which must be a multiple of three.
# The penalty pushes two agents out of one factor, where those that act alike should meet: once with it, once without.
_THREE = {
    "cpu": {"num_factors": 3, "total_action_dim": 57},
    "gpu": {"num_factors": 3, "total_action_dim": 225},
    "debug": {"num_factors": 3, "total_action_dim": 57},
}


def _correlated(preset: str) -> tuple[Row, ...]:
    if preset not in _THREE:
        return ()
    three = FLAM.varied("k_3", "K = 3", _THREE[preset], compared_with="flam")
    return three, three.varied("k_3_no_balance", "no separation penalty", {"separation_penalty": 0.0})


def _with_four(rows: Iterable[Row]) -> tuple[Row, ...]:
    """As the paper reads D, C and I: as many factors as there are agents, none of them to spare."""
    fields, own = {"num_factors": 4}, {"axis": "factors"}
    return tuple(
        _of_factors(4)
        if row is FLAM
        else row.varied(f"{row.key}_k_4", "K = 4", fields, compared_with="k_4", series=row.key, **own)
        for row in rows
    )


def _by_beta(row: Row, betas: Sequence[float]) -> tuple[Row, ...]:
    """A monolithic model or FLAM with other β; the models for which β grows get it as the last value."""
    return tuple(
        row.varied(
            f"{row.key}_beta_{beta:g}".replace("-", "_"),
            f"β = {beta:.0e}".replace("e-0", "e-") if beta < 1 else f"β = {beta:g}",
            {"kl_weight": beta, "kl_weight_final": beta},
            compared_with="flam",
            series=row.key,
            axis="beta",
        )
        for beta in betas
    )


# The paper's, and on to where actions cost more than they save: our errors are sums over other features than there.
BETAS = _by_beta(FLAM, (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))
# The same β does not give two models the same KL: that of AdaWorld's runs must lie within the curve that β draws for
# FLAM. A codebook's size bounds what it can carry; four agents of three actions take 81 joint ones at a time.
INFORMATION = (
    *(FLAM, GENIE, ADAWORLD),
    *_by_beta(FLAM, (1e-4, 1e-3, 1e-2)),
    *_by_beta(ADAWORLD, (2e-2,)),
    GENIE.varied("genie_512_codes", "512 codes", {"codebook_size": 512}, series="genie", axis="codes"),
)
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
# On MultiGrid β of the monolithic models grows to its last value, with which they were tuned: AdaWorld learns late when
# β has that value from the start (docs/results/other_measurements.md). Genie and the true actions do not use β; the
# field is that of their records.
_FROM_LITTLE = {model: {"kl_weight": 2e-4} for model in ("genie", "adaworld", "action_conditioned")}
BETA_WARMUP = {"cpu": _FROM_LITTLE, "gpu": _FROM_LITTLE}
# With windows of four frames, slots that start from the last frame's lose their entity beyond four frames. Windows are
# twice as long and half as many: a step has as many frames.
LONGER_WINDOWS = {
    "cpu": {model: {"training.window": 8, "training.batch_size": 8} for model in ("playslot", "slotformer")}
}
# Steps that a model does in the time of one of FLAM's, on one core: about 2.9 against 8.7 a second.
PACE = {"cpu": {"genie": 0.33, "adaworld": 0.33}}
# Rows with eight seeds, by key. AdaWorld's runs lie up to 15 dB apart (but for those in FLAM's time, which end early);
# slots of PlaySlot and of FLAM without temporal attention bind in a part of the runs; with as many factors as agents an
# agent is not always learned. Rows that are compared with them have as many seeds.
EXTRA_SEEDS = {
    ("cpu", "4agents"): (
        *("flam", "adaworld", "adaworld_beta_0.02", "playslot", "without_temporal_attention"),
        *("k_4", "playslot_k_4", "without_temporal_attention_k_4"),
    )
}
# Learning rates that are tried for every model, on the validation split and with seeds that are not reported: all rates
# with one seed; then the two best of a model whose runs lie far apart with two seeds more, so that no model has fewer
# trials than FLAM. `TUNED` has the best, where it is not the experiment's own (docs/results/other_measurements.md). The
# ablations reach the ceiling at three rates each, the experiment's among them.
LEARNING_RATES = {
    "cpu": (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    "gpu": (2.5e-4, 5e-4, 1e-3, 2e-3),
    "paper": (5e-5, 1e-4, 2e-4),
    "debug": (7.5e-4, 1.5e-3),
}
FINALISTS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "cpu": {"adaworld": (1.5e-3, 3e-3)},
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
      column: key of the data set; names the folder.
      row: the row of the tables.
      seed: of the model; all cells of a column use one data set and one tokenizer.
      experiment: file of the experiment.
      arguments: of the experiment.
      overrides: fields of the configuration, by dotted name.
    """

    column: str
    row: Row
    seed: int
    experiment: str
    arguments: str
    overrides: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where it lies below the study's workdir."""
        return f"{self.column}/{self.row.key}/seed{self.seed}"

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
    in_time = [
        dataclasses.replace(
            row,
            key=f"{row.key}_in_flam_s_time",
            model=f"{row.model} in FLAM's time",
            fields={**row.fields, "training.num_steps": round(PACE[preset][row.key] * STEPS[preset])},
            series="",
        )
        for row in MONOLITHIC
        if row.key in PACE.get(preset, {})
    ]
    return _grids("4agents", [*MONOLITHIC, *in_time], preset)


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
    return _grids("4agents", [*OBJECT_CENTRIC, *_with_four(OBJECT_CENTRIC)], preset)


def ablations(preset: str) -> list[Cell]:
    """FLAM with one of its ideas taken out (PAPER: representation), with factors to spare and with none; then without
    the separation penalty, which is this project's, and with positions in the keys too; and the paper's model."""
    rows = [*ABLATIONS, *_with_four(ABLATIONS), *NO_PENALTY, *POSITIONS_IN_KEYS, PAPER, *_with_four([PAPER])]
    return _grids("4agents", rows, preset)


def sweeps(preset: str) -> list[Cell]:
    """FLAM by the number of factors and by β, with 16 agents (`agents` has fewer), and with two agents that always act
    alike (PAPER: number of factors)."""
    swept = _grids("4agents", [FLAM, *FACTORS, *BETAS], preset) + _grids("16agents", [FLAM], preset)
    # The paper's sizes have three factors there by itself.
    return swept + _grids("correlated", [FLAM, *_correlated(preset)], preset)


def information(preset: str) -> list[Cell]:
    """Prediction by the KL of the actions, FLAM against the monolithic models."""
    return _grids("4agents", INFORMATION, preset)


def tuning(preset: str) -> list[Cell]:
    """Every model with the same trials, scored on the validation split; models whose runs lie far apart get more
    (ours)."""
    models = {row.key: row for row in (*MONOLITHIC, *OBJECT_CENTRIC, *ABLATIONS)}

    def tried(rates: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Cell]:
        rows = [_at_rate(models[key], rate, LEARNING_RATES[preset][0]) for key in rates for rate in rates[key]]
        return _grids("4agents", rows, preset, seeds)

    every = {key: tuple(LEARNING_RATES[preset]) for key in models}
    found = tried(every, TUNING_SEEDS[:1]) + tried(FINALISTS[preset], TUNING_SEEDS[1:])
    return [dataclasses.replace(cell, overrides={**cell.overrides, "evaluation.split": "val"}) for cell in found]


def _at_rate(row: Row, rate: float, first: float) -> Row:
    """A row at a learning rate, compared with FLAM's at the same one, and FLAM's with FLAM's at the first."""

    def key(of: Row, at: float) -> str:
        return f"{of.key}_learning_rate_{at:g}".replace("-", "_")

    other = None if row is FLAM and rate == first else key(FLAM, first if row is FLAM else rate)
    return row.varied(
        key(row, rate),
        f"learning rate {rate:g}",
        {"training.learning_rate": rate},
        compared_with=other,
        series=row.key,
        axis="learning_rate",
    )


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
            raise ConfigError(f"--{name}={short_repr(value)}: expected one of {', '.join(known)}")
    if study == "procgen" and preset == "gpu":
        raise ConfigError("--preset=gpu: it is for MultiGrid alone; of procgen expected one of cpu, paper, debug")
    chosen = {name: make for name, make in STUDIES.items() if study == name or (study == "all" and make is not tuning)}
    by_folder = {cell.folder: cell for make in chosen.values() for cell in make(preset)}
    return list(by_folder.values())


def _grids(variant: str, rows: Sequence[Row], preset: str, seeds: Sequence[int] = SEEDS) -> list[Cell]:
    def fields(row: Row) -> dict[str, Any]:
        model = row.fields["name"]
        steps = {"training.num_steps": STEPS[preset]} if preset in STEPS else {}
        special = [table.get(preset, {}).get(model, {}) for table in (BETA_WARMUP, LONGER_WINDOWS)]
        return {**steps, **row.fields, **special[0], **special[1]}

    rows = [dataclasses.replace(row, fields=fields(row)) for row in rows]
    return _cells("experiments/multigrid.py", variant, rows, preset, seeds, EXTRA_SEEDS.get((preset, variant), ()))


def _cells(
    experiment: str,
    variant: str,
    rows: Sequence[Row],
    preset: str,
    seeds: Sequence[int],
    extra_seeds: Sequence[str] = (),
) -> list[Cell]:
    arguments = variant if preset == "paper" else f"{variant},{preset}"
    defaults = load_config(experiment, arguments)
    if preset == "debug":  # enough to see that a study runs
        rows, seeds = list(itertools.islice(rows, 2)), seeds[:1]
    found, seen = [], []
    for row in rows:
        model = row.fields["name"]
        width = {"model_dim": WIDTH[model][preset]} if model in WIDTH else {}
        overrides = {
            f"dynamics.{name}": value for name, value in {**width, **TUNED[preset].get(model, {}), **row.fields}.items()
        }
        changes = {name: value for name, value in overrides.items() if get_field(defaults, name) != value}
        if changes not in seen:
            seen.append(changes)  # a row that would be another one once more is left out
            of_row = MORE_SEEDS if row.key in extra_seeds else seeds
            found += [Cell(variant, row, seed, experiment, arguments, overrides) for seed in of_row]
    # Every row once before the next seed: tables fill evenly.
    return sorted(found, key=lambda cell: cell.seed)


__all__ = ["AGENTS", "AXES", "PRESETS", "STUDIES", "Axis", "Cell", "Row", "cells"]
