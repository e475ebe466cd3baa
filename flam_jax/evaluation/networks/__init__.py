"""Published networks that judge frames and videos, as functions of parameters that the user supplies.

Parameters are flat dicts from a name to a float32 array. `NETWORKS` holds the names of every network's.
"""

from flam_jax.evaluation.networks import i3d, lpips

# What files, commands and errors call a network, and the shape of each of its parameters.
NETWORKS: dict[str, dict[str, tuple[int, ...]]] = {
    "lpips_alex": lpips.parameter_shapes("alex"),
    "lpips_vgg": lpips.parameter_shapes("vgg"),
    "i3d": i3d.parameter_shapes(),
}

__all__ = ["NETWORKS"]
