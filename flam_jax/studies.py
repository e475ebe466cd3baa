"""What is compared with what: every study as a list of cells, each of which is one training run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flam_jax.config import Config, ConfigError, load_config

PRESETS = ("cpu", "paper", "debug")
SEEDS = (0, 1, 2)
# The field `dynamics.name` of every row.
MONOLITHIC = {"FLAM": "flam", "Genie": "genie", "AdaWorld": "adaworld"}
OBJECT_CENTRIC = {"FLAM": "flam", "PlaySlot": "playslot", "SlotFormer": "slotformer"}
ABLATIONS = {"FLAM": "flam", "without temporal attention": "flam_recurrent", "globally coupled": "flam_coupled"}
# These have fewer parts than FLAM; with such widths the parameter counts agree within 10 % (counted by a test).
WIDER = ("genie", "adaworld", "slotformer")
WIDTH = {"cpu": 96, "paper": 384, "debug": 24}


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
        return "/".join(part.replace(" ", "_").lower() for part in (self.column, self.row, f"seed{self.seed}"))

    def config(self, changes: Mapping[str, Any]) -> Config:
        """Its configuration, with further changes.

        Raises:
          ConfigError: a field that does not exist, or a value that cannot work.
        """
        overrides = {"seed": self.seed, **self.overrides, **changes}
        return load_config(self.experiment, self.arguments, overrides=overrides)


def multigrid(preset: str) -> list[Cell]:
    """FLAM against the monolithic models on four agents (PAPER: prediction)."""
    return _cells("experiments/multigrid.py", "4agents", MONOLITHIC, preset)


def procgen(preset: str) -> list[Cell]:
    """FLAM against the monolithic models on three games (PAPER: prediction)."""
    games = ("bigfish", "leaper", "starpilot")
    return [cell for game in games for cell in _cells("experiments/procgen.py", game, MONOLITHIC, preset)]


def agents(preset: str) -> list[Cell]:
    """The gap to the monolithic models by the number of agents (PAPER: number of agents)."""
    variants = ("2agents", "4agents", "8agents")
    return [cell for variant in variants for cell in _cells("experiments/multigrid.py", variant, MONOLITHIC, preset)]


def slots(preset: str) -> list[Cell]:
    """FLAM against the object-centric models on four agents (PAPER: representation)."""
    return _cells("experiments/multigrid.py", "4agents", OBJECT_CENTRIC, preset)


def ablations(preset: str) -> list[Cell]:
    """FLAM with one of its ideas taken out (PAPER: representation)."""
    return _cells("experiments/multigrid.py", "4agents", ABLATIONS, preset)


STUDIES = {"multigrid": multigrid, "procgen": procgen, "agents": agents, "slots": slots, "ablations": ablations}


def cells(study: str, preset: str) -> list[Cell]:
    """The cells of a study in the order in which they are run; `all` holds every cell of every study once.

    Raises:
      ConfigError: there is no such study or preset.
    """
    for name, value, known in (("study", study, (*STUDIES, "all")), ("preset", preset, PRESETS)):
        if value not in known:
            raise ConfigError(f"--{name}={value}: expected one of {', '.join(known)}")
    chosen = STUDIES if study == "all" else {study: STUDIES[study]}
    by_folder = {cell.folder: cell for make in chosen.values() for cell in make(preset)}
    return list(by_folder.values())


def _cells(experiment: str, variant: str, models: Mapping[str, str], preset: str) -> list[Cell]:
    arguments = variant if preset == "paper" else f"{variant},{preset}"
    found = []
    for seed in SEEDS if preset != "debug" else SEEDS[:1]:  # every model once before the next seed: tables fill evenly
        for row, name in models.items():
            overrides: dict[str, Any] = {"dynamics.name": name}
            if name in WIDER:
                overrides["dynamics.model_dim"] = WIDTH[preset]
            found.append(Cell(variant, row, seed, experiment, arguments, overrides))
    return found


__all__ = ["STUDIES", "Cell", "cells"]
