"""The other side of every comparison: small compositions of the parts of `dynamics/`, on the same frozen tokenizer.

All of them answer the methods of `Flam` (the call itself, factorize, infer_actions, predict_slots, aggregate,
sample_actions, init_cache, step), so training, evaluation and `WorldModel` do not know which one they hold.
"""
