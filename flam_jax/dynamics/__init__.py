"""Dynamics: pure modules and functions, no configuration, disk, mesh or logging."""
