"""Procgen games without backgrounds, played at random: one player and many others that move by themselves (EnvPool).

Records, one clip of one episode each: `frames` u8[t H W 3], `actions` int8[t] (Procgen's own numbers; taken at frame t,
seen at frame t + 1), `rewards` float32[t] (for the action at frame t), `level`, `episode` (unique in the data set) and
`clip` (its number within the episode). No level lies in two splits.

The games draw 64x64 pixels. Other sizes are EnvPool's own enlargement of those, which is bilinear.
"""
