"""The interface between a stage of training and the loop that trains it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from flam_jax.config import Config
from flam_jax.training.batches import Loader
from flam_jax.training.state import Span

# Arrays by name whose leading axis is the batch: `frames` u8[b t H W 3], `codes` u8[b t h w c] or `features`
# f16[b t h w c], and true actions.
Batch = Mapping[str, Any]
# Parameters of earlier stages, by the names of these stages. The loss reads them and nothing trains them.
Frozen = Mapping[str, Any]


@runtime_checkable
class Stage(Protocol):
    """One stage of training: its model, loss, data and evaluation. The loop uses nothing else of it.

    A class that implements it has all of the members; there are no optional ones. `init`, `loss` and `prepare` are pure
    functions that JAX traces.

    Attributes:
      name: of the stage: its section of the configuration, its folder in the workdir.
      frozen: parameters of earlier stages. The loop puts them on the devices once and hands them to `init`, `loss` and
        `prepare`.
    """

    name: str
    frozen: Frozen

    def init(self, key: PRNGKeyArray, frozen: Frozen, batch: Batch) -> Mapping[str, Any]:
        """Initial variables. Only the collection `params` is trained, and there may be no other."""
        ...

    def loss(
        self, params: PyTree, frozen: Frozen, batch: Batch, key: PRNGKeyArray, progress: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Mapping[str, Any]]:
        """The loss of a batch.

        Args:
          params: to be trained.
          frozen: not to be trained.
          batch: from the loader, or from `prepare`.
          key: of the noise of this step.
          progress: share of the training that is done, in [0, 1); schedules depend on it.

        Returns:
          The loss, a mean over the batch, and scalars to log.
        """
        ...

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        """The part of the loss that needs no gradient, on a whole batch; used where a batch is taken in parts.

        Returns:
          A batch that gives the same loss; the batch itself where there is no such part.
        """
        ...

    def span(self, part: str) -> Span:
        """The shares of the training between which a part of the parameters is trained, (0, 1) for all of it.

        Each span has its own learning-rate schedule. Outside of it the part and its optimizer state do not change.

        Args:
          part: a first name in the tree of the parameters.
        """
        ...

    def warnings(self, values: Mapping[str, float]) -> list[str]:
        """Sentences that name what has collapsed, with the remedy.

        Args:
          values: one set of logged values, by name; those of evaluation begin with `validation/`.
        """
        ...

    def evaluate(
        self, variables: Mapping[str, Any], step: int, progress: float
    ) -> tuple[Mapping[str, float], Mapping[str, UInt8[np.ndarray, "H W 3"]]]:
        """Scalars and pictures by name, made on the validation split. Independent of earlier calls.

        Args:
          variables: `{"params": ...}`.
          step: updates done.
          progress: share of the training that is done.
        """
        ...

    def make_loader(self, rows: Sequence[int] | None = None) -> Loader:
        """Training batches from their beginning; of every batch only the given rows, all of them by default."""
        ...

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of what the loader gives, for `batch_size` examples."""
        ...


@runtime_checkable
class StageClass(Protocol):
    """The class of a stage, as in the registry (`flam_jax.training.stages`).

    Attributes:
      name: of the stage.
      needs: names of the stages whose parameters it takes as `frozen`.
    """

    name: str
    needs: tuple[str, ...]

    def __call__(self, config: Config, dataset: Any, frozen: Frozen) -> Stage:
        """Builds the stage; reads no data.

        Args:
          config: the whole configuration.
          dataset: of `data_pipelines.prepare`; None where nothing is loaded and nothing evaluated.
          frozen: parameters of the stages in `needs`; empty where no values are computed.
        """
        ...


__all__ = ["Batch", "Frozen", "Stage", "StageClass"]
