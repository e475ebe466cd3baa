"""Features of the user's own network beside the frames that they are of, from NumPy arrays.

Records, one clip each: `frames` u8[t H W 3], `features` float16[t h w c], `seconds` float32[t] since the first frame
of the arrays, `episode` (number of the folder in the data card) and `clip` (milliseconds at which it begins).
"""
