"""Computes `evaluation.json` and `report.html` of a trained run again.

    python -m flam_jax.evaluation --workdir=FOLDER [--split=test|val] [--only=MEASURE,...]

With `--only` some measures alone are computed and printed as JSON, for example `--only=dci,leak`; no file is written.

Exit status: 0 done; 1 an error, told in one line; 2 a wrong command line.
"""

import json
import sys
from pathlib import Path

from flam_jax.command_line import read_flags
from flam_jax.config import ConfigError, fields, from_json
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.process import configure_process

USAGE = "python -m flam_jax.evaluation --workdir=FOLDER [--split=test|val] [--only=MEASURE,...]"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if answer(arguments, __doc__ or ""):
        return 0
    try:
        optional = ("--split", "--only")
        flags, _ = read_flags(arguments, USAGE, required=("--workdir",), optional=optional, folders=("--workdir",))
        workdir, split = flags["--workdir"], flags.get("--split")
        expected = fields()["evaluation.split"].expected(split) if split else ""
        if expected:
            raise ConfigError(f"--split={short_repr(split)}: expected {expected}")
    except ConfigError as error:
        print_error("flam_jax.evaluation", error)
        return 2
    import data_pipelines
    from data_pipelines.errors import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.evaluation.evaluators import EVALUATORS
    from flam_jax.evaluation.networks.weights import WeightsError
    from flam_jax.evaluation.runner import evaluate, measure
    from flam_jax.surroundings import SurroundingsError, check_devices, check_surroundings
    from flam_jax.world_model import WorldModel

    only = flags["--only"].split(",") if "--only" in flags else []
    for name in only:
        if name not in EVALUATORS:
            wrong = f"--only={short_repr(name)}: expected some of {', '.join(EVALUATORS)}"
            print_error("flam_jax.evaluation", ConfigError(wrong))
            return 2
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
        if only:
            world_model = WorldModel.restore(workdir)
            values, _ = measure(config, world_model, data_pipelines.prepare(config.data), only)
            print(json.dumps(values, indent=1))
            return 0
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
