"""What goes wrong with data, in one type."""


class DataError(RuntimeError):
    """Data that cannot be made or read. The message is one line: what is wrong, where, and what to do about it."""


def missing_extra(extra: str, error: ImportError) -> DataError:
    """The error for an environment whose library is not installed."""
    return DataError(
        f'the {extra} data need a library that is not installed ({error}): pip install "flam_jax[{extra}]"'
    )
