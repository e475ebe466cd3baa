"""Measures of collapse of slots and latent actions over validation windows, and warnings with remedies."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flam_jax.dynamics.interface import ModelOutput
from flam_jax.metrics import active_units


def health_values(output: ModelOutput) -> dict[str, Float[Array, ""]]:
    """Measures of one pass over a validation batch.

    Returns:
      kl_factor/i: nats a frame of factor i. units: action dimensions, over all factors. active_units: how many of them
      are active. attention_entropy: of each patch over the factors, 0 (one factor takes it) to 1 (all alike).
      share_factor/i: share of the patches that factor i takes.
    """
    kl = output.action_kl.mean(axis=(0, 1))
    factors = kl.shape[0]
    attention = output.attention
    entropy = -jax.scipy.special.xlogy(attention, attention).sum(axis=2).mean() / np.log(max(factors, 2))
    share = attention.mean(axis=(0, 1, 3, 4))
    active = active_units(output.action_mean)
    return {
        "active_units": active.sum(),
        "units": jnp.float32(active.size),
        "attention_entropy": entropy,
        **{f"kl_factor/{i}": kl[i] for i in range(factors)},
        **{f"share_factor/{i}": share[i] for i in range(factors)},
    }


def centroids(attention: Float[Array, "b t k h w"]) -> Float[Array, "b t k 2"]:
    """Mean row and column of the attention of each slot, in patches."""
    weight = attention / jnp.maximum(attention.sum(axis=(-2, -1), keepdims=True), 1e-6)
    rows, columns = (jnp.arange(size, dtype=jnp.float32)[None, None, None] for size in attention.shape[-2:])
    return jnp.stack([(weight.sum(-1) * rows).sum(-1), (weight.sum(-2) * columns).sum(-1)], axis=-1)


def action_leak(
    actions: Sequence[Float[np.ndarray, "b t k a"]], positions: Sequence[Float[np.ndarray, "b t k 2"]]
) -> float:
    """How well the next absolute position of a slot can be read from its latent action alone: R² of a linear reader.

    An action should carry a change, not a position; with a small β it carries both. Fitted per factor on half of
    the examples and judged on the other; factors count by how much their positions vary.

    Args:
      actions: latent actions, by batch.
      positions: of the slots at the next frame, by batch.

    Returns:
      0 (nothing can be read) to 1; nan when there are too few examples to judge, or when no slot moves.
    """
    # No window is divided between the halves: its frames are predictive of each other.
    count = sum(len(batch) for batch in actions)
    a, p = np.concatenate(actions).astype(np.float64), np.concatenate(positions).astype(np.float64)
    half = count // 2
    if a.size == 0:  # a model without actions
        return float("nan")
    unexplained = total = 0.0
    for factor in range(a.shape[2]):
        fit_a, fit_p = (x[:half, :, factor].reshape(-1, x.shape[-1]) for x in (a, p))
        test_a, test_p = (x[half:, :, factor].reshape(-1, x.shape[-1]) for x in (a, p))
        if len(fit_a) < 2 * (a.shape[-1] + 1):
            return float("nan")
        mean_a, mean_p = fit_a.mean(0), fit_p.mean(0)
        x = fit_a - mean_a
        weights = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ (fit_p - mean_p))
        unexplained += np.square(test_p - mean_p - (test_a - mean_a) @ weights).sum()
        total += np.square(test_p - mean_p).sum()
    return float(np.clip(1 - unexplained / total, 0, 1)) if total > 1e-6 else float("nan")


def code_use(codes: Sequence[Int[np.ndarray, "b t k"]]) -> dict[str, float]:
    """How a codebook of latent actions is used, all factors together.

    Args:
      codes: numbers of the codes, by batch.

    Returns:
      action_codes_used: how many codes occur. action_code_perplexity: how many it would be if they occurred alike.
    """
    _, counts = np.unique(np.concatenate([batch.ravel() for batch in codes]), return_counts=True)
    shares = counts / counts.sum()
    perplexity = np.exp(-(shares * np.log(shares)).sum())
    return {"action_codes_used": float(len(counts)), "action_code_perplexity": float(perplexity)}


def health_warnings(values: Mapping[str, float]) -> list[str]:
    """Sentences about what collapsed, with the remedy; `values` as logged, names under `validation/`."""
    v = {name.removeprefix("validation/"): value for name, value in values.items() if name.startswith("validation/")}
    if "attention_entropy" not in v:
        return []
    shares = {name: value for name, value in v.items() if name.startswith("share_factor/")}
    found = []
    if v["units"] == 0:
        pass  # a model without actions
    elif v["kl"] < 0.1:
        found.append(
            f"the latent actions have collapsed ({v['kl']:.2g} nats a frame): lower dynamics.kl_weight(_final)"
        )
    elif v.get("action_codes_used", 2) < 2:  # their KL is no sign: it is the logarithm of the size of the codebook
        found.append(
            "all latent actions are one code of the codebook: train longer, or change dynamics.training.learning_rate"
        )
    elif v["active_units"] < 1:
        found.append("no unit of the latent actions varies: lower dynamics.kl_weight")
    elif v["shuffle_gain"] < 0.02:
        found.append(
            f"the prediction hardly depends on the actions (exchanging them costs {v['shuffle_gain']:.1%}):"
            " begin with dynamics.kl_weight=0 and raise dynamics.kl_anneal_start"
        )
    if len(shares) > 1:
        if max(shares.values()) > 0.98:
            found.append("one slot takes all patches: raise dynamics.inverse_temperature or try another seed")
        elif v["attention_entropy"] > 0.9:
            found.append(
                f"the slots do not compete (attention entropy {v['attention_entropy']:.2f} of 1):"
                " raise dynamics.inverse_temperature"
            )
    if v.get("action_leak", 0) > 0.5:
        found.append(
            f"the actions carry positions, not only changes (R² {v['action_leak']:.2f}): raise dynamics.kl_weight_final"
        )
    return found
