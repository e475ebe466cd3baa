"""What `evaluation.json` of a run could hold."""

import numpy as np


def result(psnr, **changes):
    values = {
        "rollout": {
            "psnr": psnr,
            "psnr_mean": float(np.mean(psnr)),
            "ceiling_psnr_mean": 50.0,
            "ssim_mean": 0.9,
            "lpips": "not computed",
        },
        "actions": {"kl": 3.0},
        "device": "1 x cpu",
        "steps": {"dynamics": 6},
        "seconds": {"dynamics": 2.0},
        "parameters": {"dynamics": 100},
    }
    return values | changes
