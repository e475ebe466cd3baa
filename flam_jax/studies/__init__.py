"""Comparisons of many runs: what is compared with what, the runs themselves, and their summary."""

from flam_jax.studies.definitions import PRESETS, STUDIES, Cell, Row, cells

__all__ = ["PRESETS", "STUDIES", "Cell", "Row", "cells"]
