"""The other side of every comparison: small compositions of the parts of `dynamics/`, on the same frozen tokenizer.

All of them are `dynamics.interface.LatentActionModel`s, so training, evaluation and `WorldModel` do not know which one
they hold.
"""
