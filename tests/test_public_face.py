"""The public names hold what the README shows, and importing the package costs nothing."""

import subprocess
import sys
from pathlib import Path

import flam_jax

ROOT = Path(__file__).parents[1]


def test_every_public_name_loads():
    for name in flam_jax.__all__:
        assert getattr(flam_jax, name).__name__ == name
    assert set(dir(flam_jax)) == set(flam_jax.__all__)


def test_importing_the_package_loads_nothing_heavy():
    heavy = [
        "tensorflow",
        "tensorflow_datasets",
        "grain",
        "orbax",
        "matplotlib",
        "tensorboardX",
        "scipy",
        "data_pipelines",
    ]
    code = f"import sys, flam_jax; print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


def test_dynamics_and_tokenizer_import_no_other_room():
    """They are what other projects import: no configuration, disk, mesh or logging."""
    code = (
        "import sys, flam_jax.dynamics.flam, flam_jax.dynamics.loss, flam_jax.tokenizer.tokenizer;"
        "import flam_jax.tokenizer.loss;"
        "print(sorted({m.split('.')[1] for m in sys.modules if m.startswith('flam_jax.')}),"
        " 'ml_collections' in sys.modules, 'orbax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "['axes', 'dynamics', 'metrics', 'tokenizer'] False False"
