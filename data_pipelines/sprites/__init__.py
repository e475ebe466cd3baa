"""Anti-aliased shapes that move continuously, over each other and up to the walls: between MultiGrid and real video.

Records, one clip of one episode each: `frames` u8[t H W 3], `actions` int8[t n] (taken at frame t, seen at frame
t + 1), `moves` int8[t n] (the action as far as it had an effect), `positions` float32[t n 2] (x, y of the centers),
`sizes` float32[t n], `masks` u8[t H W], `episode` and `clip`; `camera` float32[t] where it pans. An entity keeps its
number, shape and depth in the whole data set.
"""
