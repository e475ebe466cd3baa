"""nuPlan: real driving, 10 frames a second, read from the user's own download.

Records, one clip of one log each: `frames` u8[t H W 3], `controls` float32[t 3] (motion of the car to the next frame:
forward and to the left in meters, turn to the left in radians), `tracks` float32[t n 4] (other road users, the nearest
first: forward, left, heading against the car's, and 1 where there is one), `track_ids` int64[t n] (the same road user
has the same number in a log, -1 for none), `seconds` float32[t] since the log began, `episode` and `clip`.
"""
