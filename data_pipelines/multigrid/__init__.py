"""Several agents that turn and walk at once on a small walled grid (the `multigrid` package).

Records, one clip of one episode each: `frames` u8[t H W 3], `actions` int8[t n] (0 turn left, 1 turn right, 2 forward;
taken at frame t, seen at frame t + 1), `positions` int16[t n 2] (column, row), `directions` int8[t n] (0 right, 1 down,
2 left, 3 up), `episode` and `clip` (whole numbers).
"""
