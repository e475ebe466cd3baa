"""Configurations: an `ml_collections.ConfigDict` tree of declared fields.

| module | holds |
|---|---|
| `groups` | every field: default, bounds, meaning |
| `schema` | the tree of them, and the field behind a dotted name |
| `validation`, `footprint` | what can work, and the least memory that it takes |
| `paper_model` | the fields without what this project adds to the paper's model |
| `load` | experiment files and changes on a command line |
| `stored` | JSON, the identity of a run, what may change in a workdir |
"""

from flam_jax.config.load import describe_arguments, experiments, load_config, override, parse_arguments
from flam_jax.config.paper_model import PAPER_MODEL, use_paper_model
from flam_jax.config.schema import Config, ConfigError, default_config, field_names, fields, get_field, steps_of
from flam_jax.config.stored import CODE_VERSION, differences, from_json, identity, to_json
from flam_jax.config.validation import check_memory, validate

__all__ = [
    "CODE_VERSION",
    "PAPER_MODEL",
    "Config",
    "ConfigError",
    "check_memory",
    "default_config",
    "describe_arguments",
    "differences",
    "experiments",
    "field_names",
    "fields",
    "from_json",
    "get_field",
    "identity",
    "load_config",
    "override",
    "parse_arguments",
    "steps_of",
    "to_json",
    "use_paper_model",
    "validate",
]
