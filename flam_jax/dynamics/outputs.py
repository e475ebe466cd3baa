"""What every model computes from its outputs."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def check_frames(frames: int) -> None:
    """Raises ValueError when no action lies between the frames."""
    if frames < 2:
        raise ValueError(f"latent actions lie between frames: expected at least 2 frames, got {frames}")


def squared_error(
    predicted: Float[Array, "b t h w c"], true: Float[Array, "b t h w c"], first: Array | int = 0
) -> Float[Array, ""]:
    """Summed over h, w, c and averaged over b and the frames from `first` on."""
    error = jnp.square(predicted - true).sum(axis=(-3, -2, -1)).mean(axis=0)
    counts = (jnp.arange(error.shape[0]) >= first).astype(error.dtype)
    return jnp.sum(error * counts) / counts.sum()


def paper_losses(
    features: Float[Array, "b t h w c"],
    next_features: Float[Array, "b t-1 h w c"],
    action_kl: Float[Array, "b t-1 k"],
) -> dict[str, Float[Array, ""]]:
    """The two parts of the paper's loss: `prediction`, and `kl` summed over k and averaged over b and t."""
    return {"prediction": squared_error(next_features, features[:, 1:]), "kl": action_kl.sum(axis=-1).mean()}
