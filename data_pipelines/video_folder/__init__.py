"""A folder of the user's own videos: files, and folders of pictures, however deep.

Records, one clip each: `frames` u8[t H W 3], `seconds` float32[t] since the first frame of the file, `episode` (number
of the file in the data card) and `clip` (milliseconds at which it begins).
"""
