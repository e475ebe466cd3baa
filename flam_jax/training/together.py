"""Several seeds of one run as one program: the step of a run, vmapped over the runs."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from flam_jax.config import Config
from flam_jax.training.batches import DeviceBatch
from flam_jax.training.run import Run
from flam_jax.training.stage import Batch, Frozen, Stage
from flam_jax.training.state import TrainState
from flam_jax.training.step import CompiledStep, train_step


class Together:
    """Runs that differ in their seeds alone, as one `loop.Trainable`.

    States and batches are tuples with one entry a run. They are stacked within the compiled step: outside of it, and on
    disk, each run has its own.
    """

    def __init__(self, runs: Sequence[Run]):
        """Takes runs that resume from the same step. The frozen parameters of the first one serve all."""
        self._runs, self._first = runs, runs[0]
        self.stage, self.training = self._first.stage, self._first.training
        self.end = self._first.end
        self._compiled: CompiledStep

    @property
    def saved(self) -> int:
        """Step of the last checkpoints."""
        return self._first.saved

    def next_batch(self) -> tuple[DeviceBatch, ...]:
        return tuple(run.next_batch() for run in self._runs)

    def start(self, batches: tuple[DeviceBatch, ...]) -> tuple[TrainState, ...]:
        frozen = self._first.frozen
        shapes, make_state = self._first.plan_state(batches[0])
        states = tuple(
            run.first_state(frozen, batch, shapes, make_state) for run, batch in zip(self._runs, batches, strict=True)
        )
        seeds = tuple(run.config.seed for run in self._runs)
        step = functools.partial(train_steps, stage=self.stage, training=self.training, seeds=seeds)
        arrays = tuple(batch.arrays for batch in batches)
        self._compiled = self._first.compile(step, (shapes,) * len(states), arrays)
        progress = self._first.begin()
        for run in self._runs[1:]:
            run.begin(progress)
        return states

    def step(
        self, number: int, states: tuple[TrainState, ...], batches: tuple[DeviceBatch, ...]
    ) -> tuple[TrainState, ...]:
        arrays = tuple(batch.arrays for batch in batches)
        states, metrics = self._compiled.run(states, self._first.frozen, arrays)
        for run, values, batch in zip(self._runs, metrics, batches, strict=True):
            run.add(number, values, batch)
        return states

    def due(self, step: int, every: int) -> bool:
        return self._first.due(step, every)

    def drain_metrics(self, in_flight: int) -> None:
        for run in self._runs:
            run.drain_metrics(in_flight)

    def evaluate(self, step: int, states: tuple[TrainState, ...]) -> None:
        for run, state in zip(self._runs, states, strict=True):
            run.evaluate(step, state)

    def save(self, step: int, states: tuple[TrainState, ...]) -> None:
        for run, state in zip(self._runs, states, strict=True):
            run.save(step, state)
            if jax.process_count() > 1:  # processes meet at barriers while they save: one run after the other
                run.wait()

    def wait(self) -> None:
        for run in self._runs:
            run.wait()

    def finish(self) -> None:
        for run in self._runs:
            run.finish()


def train_steps(
    states: tuple[TrainState, ...],
    frozen: Frozen,
    batches: tuple[Batch, ...],
    *,
    stage: Stage,
    training: Config,
    seeds: Sequence[int],
) -> tuple[tuple[TrainState, ...], tuple[dict[str, jax.Array], ...]]:
    """`train_step` of several runs: the next state and the metrics of each."""

    def one(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        return train_step(state, frozen, batch, stage=stage, training=training, seed=seed)

    stacked = jax.vmap(one)(_stack(states), _stack(batches), jnp.asarray(seeds, jnp.uint32))
    next_states, metrics = (_unstack(tree, len(states)) for tree in stacked)
    return next_states, metrics


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstack(tree: PyTree, number: int) -> tuple[PyTree, ...]:
    return tuple(jax.tree.map(lambda leaf, index=index: leaf[index], tree) for index in range(number))


__all__ = ["Together", "train_steps"]
