"""When models change, kept results are of an earlier version of the code: `CODE_VERSION` is part of a run's identity.

Where a change is meant, raise `CODE_VERSION` in `flam_jax/config/stored.py` and write the file anew:

    python -m tests.test_code_version
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flam_jax.build import build_dynamics, build_tokenizer
from flam_jax.config import CODE_VERSION
from flam_jax.dynamics.loss import dynamics_loss
from flam_jax.models import MODELS
from tests.tiny import SIZE, tiny_config

FILE = Path(__file__).with_name("model_outputs.json")
NAMES = ("tokenizer", *MODELS)


def outputs(name: str) -> list[float]:
    """Numbers that a model of fixed parameters gives on fixed inputs."""
    rng = np.random.default_rng(0)

    def filled(module, example):
        shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(example.shape, example.dtype))
        return jax.tree.map(lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), shapes)

    if name == "tokenizer":
        module = build_tokenizer(tiny_config())
        frames = rng.random((2, 1, SIZE, SIZE, 3), np.float32)
        return [float(jax.jit(module.apply)(filled(module, frames), frames).reconstruction.mean())]
    config = tiny_config(name=name, aggregator="additive", local_context=False)
    model = build_dynamics(config)
    features = rng.choice([-1.0, 0.0, 1.0], (2, 3, 4, 4, 2)).astype(np.float32)
    true_actions = jnp.asarray(rng.integers(0, 3, (2, 3, 2)), jnp.int32)

    @jax.jit
    def losses(variables, features):
        options = dict(kl_weight=0.1, prediction_steps=1, levels=(3, 3), true_actions=true_actions)
        loss, values, _ = dynamics_loss(model, variables, features, jax.random.key(0), **options)
        return loss, values["kl"], values["prediction_loss"]

    return [float(value) for value in losses(filled(model, features), features)]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_change_with_the_code_version_alone(name):
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert stored["code_version"] == CODE_VERSION
    assert outputs(name) == pytest.approx(stored[name], rel=1e-3)


if __name__ == "__main__":
    found = {name: [float(f"{value:.6g}") for value in outputs(name)] for name in NAMES}
    FILE.write_text(json.dumps({"code_version": CODE_VERSION, **found}, indent=1) + "\n", encoding="utf-8")
