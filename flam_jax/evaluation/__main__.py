"""Computes `evaluation.json` and `report.html` of a trained run again.

    python -m flam_jax.evaluation --workdir=FOLDER [--split=test|val]

Exit status: 0 done; 1 an error, told in one line; 2 a wrong command line.
"""

import sys
from pathlib import Path

from flam_jax.command_line import read_flags
from flam_jax.config import ConfigError, fields, from_json
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.process import configure_process

USAGE = "python -m flam_jax.evaluation --workdir=FOLDER [--split=test|val]"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if answer(arguments, __doc__ or ""):
        return 0
    try:
        flags, _ = read_flags(arguments, USAGE, required=("--workdir",), optional=("--split",), folders=("--workdir",))
        workdir, split = flags["--workdir"], flags.get("--split")
        expected = fields()["evaluation.split"].expected(split) if split else ""
        if expected:
            raise ConfigError(f"--split={short_repr(split)}: expected {expected}")
    except ConfigError as error:
        print_error("flam_jax.evaluation", error)
        return 2
    from data_pipelines.errors import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.evaluation import evaluate
    from flam_jax.evaluation.networks.weights import WeightsError
    from flam_jax.surroundings import SurroundingsError, check_devices, check_surroundings

    try:
        check_surroundings()
        check_devices()
        try:
            text = (Path(workdir) / "config.json").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--workdir={workdir}: no config.json there that can be read; expected the folder of a trained run"
            ) from error
        config = from_json(text)
        if split:
            config.evaluation.split = split
        result = evaluate(config, workdir)
    except (ConfigError, DataError, CheckpointError, SurroundingsError, WeightsError) as error:
        print_error("flam_jax.evaluation", error)
        return 1
    rollout = result["rollout"]
    if "skipped_clips" in rollout:
        print(f"{rollout['skipped_clips']} clips cannot be read and are skipped: others stood in for them")
    print(
        f"{result['split']}: PSNR {rollout['psnr'][0]:.2f} dB at step 1, {rollout['psnr'][-1]:.2f} at step "
        f"{len(rollout['psnr'])}, ceiling {rollout['ceiling_psnr_mean']:.2f}; see {workdir}/report.html"
    )
    return 0


if __name__ == "__main__":
    configure_process()
    sys.exit(main())
