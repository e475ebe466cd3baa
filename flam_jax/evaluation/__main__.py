"""Computes `evaluation.json` and `report.html` of a trained run again.

python -m flam_jax.evaluation --workdir=FOLDER [--split=test|val]
"""

import argparse
import sys
from pathlib import Path

from flam_jax.config import ConfigError, from_json


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    from data_pipelines.errors import DataError
    from flam_jax.checkpoints import CheckpointError
    from flam_jax.evaluation import evaluate
    from flam_jax.evaluation.networks.weights import WeightsError

    parser = argparse.ArgumentParser(prog="python -m flam_jax.evaluation", description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of a trained run")
    parser.add_argument("--split", choices=("test", "val"), help="clips that are scored; as the run says by default")
    options = parser.parse_args(arguments)
    file = Path(options.workdir) / "config.json"
    try:
        if not file.is_file():
            raise ConfigError(
                f"--workdir={options.workdir}: no config.json there; expected the folder of a trained run"
            )
        config = from_json(file.read_text(encoding="utf-8"))
        if options.split:
            config.evaluation.split = options.split
        result = evaluate(config, options.workdir)
    except (ConfigError, DataError, CheckpointError, WeightsError) as error:
        print(f"flam_jax.evaluation: {error}", file=sys.stderr)
        return 1
    rollout = result["rollout"]
    if "skipped_clips" in rollout:
        print(f"{rollout['skipped_clips']} clips cannot be read and are skipped: others stood in for them")
    print(
        f"{result['split']}: PSNR {rollout['psnr'][0]:.2f} dB at step 1, {rollout['psnr'][-1]:.2f} at step "
        f"{len(rollout['psnr'])}, ceiling {rollout['ceiling_psnr_mean']:.2f}; see {options.workdir}/report.html"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
