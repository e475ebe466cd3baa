"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np
from jaxtyping import Float


def frechet_distance(first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m e"]) -> float:
    """Distance between the Gaussians with the means and covariances of two sets: |μ1-μ2|² + tr(C1 + C2 - 2(C1 C2)^½).

    This is what FID and FVD report: the square of the 2-Wasserstein distance (Dowson and Landau 1982). Covariances are
    unbiased, divided by n-1. With X the centred set over the root of n-1, C = XᵀX, and the eigenvalues of C1 C2 that
    are not zero are the squared singular values of X1 X2ᵀ. Their sum is the trace of the root, without a root of a
    matrix, so that covariances may be singular: fewer samples than dimensions do no harm to accuracy. They do harm to
    the estimate, which then lies too high; compare only what has the same number of samples.

    Args:
      first: one row a sample, at least two.
      second: likewise.

    Returns:
      The distance, at least 0, in squared units of the features; computed in float64.

    Raises:
      ValueError: fewer than two samples, different numbers of features, or values that are not finite.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the Fréchet distance needs sets of equal width, got {first.shape[1]} and {second.shape[1]}")
    means, spreads = [], []
    for samples in (first, second):
        if len(samples) < 2:
            raise ValueError(f"the Fréchet distance needs at least 2 samples of each set, got {len(samples)}")
        values = np.asarray(samples, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("the Fréchet distance needs finite features")
        means.append(values.mean(axis=0))
        # Of X only XᵀX counts: the triangular factor has the same, and never more rows than columns.
        spreads.append(np.linalg.qr((values - means[-1]) / np.sqrt(len(values) - 1), mode="r"))
    own = sum(float(np.sum(spread**2)) for spread in spreads)
    shared = float(np.linalg.svd(spreads[0] @ spreads[1].T, compute_uv=False).sum())
    return max(float(np.sum((means[0] - means[1]) ** 2)) + own - 2.0 * shared, 0.0)


__all__ = ["frechet_distance"]
