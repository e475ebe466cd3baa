"""Packaging of flam_jax: `pip install -e ".[multigrid]"` installs what the main job needs."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    # Environments that render the data sets.
    "multigrid": ["multigrid==0.1.0"],
    # PyQt5-Qt5 carries the Qt libraries that EnvPool's Procgen renders with. It has no wheel for Linux on Arm:
    # there the system's Qt 5 is used (libqt5gui5).
    "procgen": ["envpool>=1.2.5", "PyQt5-Qt5>=5.15.2; sys_platform != 'linux' or platform_machine == 'x86_64'"],
}
# Decodes video files.
EXTRAS["video"] = ["av>=14.2"]
# Reads LeRobot data sets.
EXTRAS["lerobot"] = [*EXTRAS["video"], "pyarrow>=16.0"]
# Reads the published weights of LPIPS and FVD, which are then converted.
EXTRAS["weights"] = ["torch>=2.4"]
# The TPU's compiler, for plans without a TPU. Version 0.0.42 overflows its stack on the convolutions of a 224x224 step.
EXTRAS["tpu-plan"] = ["libtpu>=0.0.52; sys_platform == 'linux' and platform_machine == 'x86_64'"]
# The documentation site. mkdocs-material is pinned below 10: its successor reads the same mkdocs.yml.
# Ruff formats the signatures.
EXTRAS["docs"] = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.27", "ruff>=0.9"]
EXTRAS["test"] = [
    *EXTRAS["multigrid"],
    *EXTRAS["procgen"],
    *EXTRAS["lerobot"],
    *EXTRAS["tpu-plan"],
    # Pyright with everything that it needs in its wheels: plain pyright downloads itself when it first runs.
    "basedpyright>=1.29",
    "beartype>=0.20",
    # pytest-xdist 3.8 does not keep the tests of a group on one worker under pytest 9.2 (pytest-xdist issue 1386).
    "pytest>=8.3,<9.2",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "setuptools>=70",  # a test builds what a wheel holds
]

setup(
    name="flam_jax",
    version="0.1.0",
    description="Factored Latent Action World Models in JAX: controllable world models from unlabelled video.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The experiments lie beside the packages in a checkout, where readers look for them, and in the package in a wheel.
    packages=[*find_packages(include=["flam_jax*", "data_pipelines*"]), "flam_jax.experiments"],
    package_dir={"flam_jax.experiments": "experiments"},
    package_data={"flam_jax": ["py.typed", "**/templates/*", "**/*.md"]},
    entry_points={"console_scripts": ["flam = flam_jax.console:run"]},
    # The floors are run by `.ci/floors`.
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.1",
        "dm-pix>=0.4.3",
        "flax>=0.10.6",
        "grain>=0.2.15",  # closes its iterators
        "jax>=0.6.2",
        "jaxtyping>=0.3.0",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.7",  # scales the updates of Muon,
        "orbax-checkpoint>=0.11.15",
        "packaging>=24.0",
        "pillow>=10.4",
        "rich>=13.7",
        "scipy>=1.15",
        "tensorboardX>=2.6.2.2",  # 2.6.2 was withdrawn
        "tensorflow-datasets>=4.9.10",  # has ShardBasedBuilder
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "License :: OSI Approved :: Apache Software License",
    ],
)
