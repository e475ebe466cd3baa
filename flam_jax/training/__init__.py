"""Training: one pure step and one loop for every stage, sharded over a mesh, with exact resume."""
