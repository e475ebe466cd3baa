"""LeRobot data sets, format 2.1 (a video an episode) and 3.0 (many episodes a video), read without the package.

Records, one clip of one episode each: `frames` u8[t H W 3], `controls` float32[t a] (the continuous action taken at
frame t), `state` float32[t s], `seconds` float32[t] since the episode began, `episode` and `clip` (milliseconds at
which it begins).
"""
