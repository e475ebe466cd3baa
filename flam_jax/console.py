"""The command `flam`.

flam train       data, training, evaluation and report of one run     (python -m flam_jax.main)
flam evaluate    scores a trained run again                           (python -m flam_jax.evaluation)
flam reproduce   a whole study and its tables                         (python -m flam_jax.reproduce)
flam plan        what a step takes on TPUs that are not there         (python -m flam_jax.topology)
flam doctor      what this machine can do, and what is missing        (python -m flam_jax.doctor)

flam COMMAND --help     the flags of a command; of train also the experiments and, with --help=fields, the fields
flam --version
"""

import difflib
import importlib
import sys

from flam_jax.messages import answer, print_error, short_repr
from flam_jax.process import configure_process

COMMANDS = {
    "train": "flam_jax.main",
    "evaluate": "flam_jax.evaluation.__main__",
    "reproduce": "flam_jax.reproduce",
    "plan": "flam_jax.topology",
    "doctor": "flam_jax.doctor",
}


def main(arguments: list[str]) -> int:
    """Runs a command; returns its exit status."""
    name = arguments[0] if arguments else "--help"
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name]).main(arguments[1:])
    if answer([name], __doc__ or ""):
        return 0 if arguments else 2
    nearest = difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.0)[0]
    print_error(
        "flam", f"no such command: {short_repr(name)}; the nearest is {nearest}; expected one of {', '.join(COMMANDS)}"
    )
    return 2


def run() -> None:
    """The entry point of the installed command."""
    configure_process()
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
