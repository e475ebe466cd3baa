"""Test runs compile hundreds of small programs once each: the compiler's optimizations cost more than they save."""

import os

_QUICK_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK_COMPILE}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
