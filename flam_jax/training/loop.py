"""The training loop."""

from typing import Protocol, TypeVar, runtime_checkable

import jax

from flam_jax.config import Config
from flam_jax.training.signals import Preempted, StopRequest
from flam_jax.training.stage import Stage

# Steps in flight. Metrics of a step are read only when this many later steps are under way: the device never waits for
# the host, and a step that is not finite is still found with its own batch at hand.
IN_FLIGHT = 2

State = TypeVar("State")
Batch = TypeVar("Batch")


@runtime_checkable
class Trainable(Protocol[State, Batch]):
    """What the loop drives: one run (`run.Run`), or several as one program (`together.Together`).

    Attributes:
      stage: what is trained.
      training: section of the configuration.
      end: the last step.
    """

    stage: Stage
    training: Config
    end: int

    @property
    def saved(self) -> int:
        """Step of the last checkpoint, 0 where there is none."""
        ...

    def next_batch(self) -> Batch:
        """The loader's next batch, on its way to the devices."""
        ...

    def start(self, batch: Batch, /) -> State:
        """Makes or restores the first state and compiles the step for the shapes of `batch`."""
        ...

    def step(self, number: int, state: State, batch: Batch, /) -> State:
        """Starts step `number`, counted from 1."""
        ...

    def due(self, step: int, every: int) -> bool:
        """Whether something that is done `every` so many steps, and after the last one, is done after `step`."""
        ...

    def drain_metrics(self, in_flight: int) -> None:
        """Checks, and logs where due, the metrics of all steps but the newest `in_flight`."""
        ...

    def evaluate(self, step: int, state: State, /) -> None:
        """Evaluates the stage and writes values and pictures."""
        ...

    def save(self, step: int, state: State, /) -> None:
        """Saves a step whose metrics, and those of all before it, are finite and written."""
        ...

    def wait(self) -> None:
        """Returns when the last checkpoint is on disk."""
        ...

    def finish(self) -> None:
        """Marks the run as finished, when its last checkpoint is on disk."""
        ...


def run_steps(run: Trainable[State, Batch], stop: StopRequest) -> State:
    """Takes the steps that are left; returns the last state.

    Raises:
      Preempted: the run was asked to end and has saved.
      NonFiniteError: the loss or the gradients are not finite.
    """
    batch = run.next_batch()
    state = run.start(batch)
    for number in range(run.saved + 1, run.end + 1):
        if stop.before(number):
            run.save(number - 1, state)
            run.wait()
            raise Preempted(run.stage.name, number - 1)
        # All that a step reads is on the devices. An argument that is not would be copied there at every step.
        with jax.transfer_guard("disallow"):
            state = run.step(number, state, batch)
            if number < run.end:
                batch = run.next_batch()
        run.drain_metrics(IN_FLIGHT)
        if run.due(number, run.training.eval_every):
            run.evaluate(number, state)
        if run.due(number, run.training.checkpoint_every):
            run.save(number, state)
    run.finish()
    if stop.before(run.end + 1):  # asked during the last steps: the next stage must not begin
        raise Preempted(run.stage.name, run.end)
    return state


__all__ = ["IN_FLIGHT", "Trainable", "run_steps"]
