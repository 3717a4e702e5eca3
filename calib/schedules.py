"""The learning rate over a training, as a factor of its largest value.

With f the fraction of the training that is done, from 0 to 1:

========== ============================================================================================================
name       factor
========== ============================================================================================================
constant   1
cosine     (1 + cos(pi f)) / 2 (Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, one period)
one-cycle  from 1/25 to 1 over the first 30 %, to 1/250000 over the rest, both along half a cosine (Smith and Topin,
           Proc. SPIE 11006, 1100612 (2019), doi 10.1117/12.2520589, with the numbers that torch has; momentum stays)
========== ============================================================================================================

A warm-up over the fraction w multiplies it by min(1, f / w).
"""

import math

SCHEDULES = ("constant", "cosine", "one-cycle")
RISE, START, END = 0.3, 1 / 25, 1 / 250_000
"""Of 'one-cycle': fraction of the training until the largest rate, and the factors at both ends."""


def factor(schedule: str, fraction: float, warm_up: float = 0.0) -> float:
    """Return the factor of the learning rate after a fraction of the training.

    Parameters
    ----------
    schedule : one of `SCHEDULES`.
    fraction : of the training that is done, 0 to 1.
    warm_up : fraction of the training over which the rate rises from 0.
    """
    if schedule == "constant":
        value = 1.0
    elif schedule == "cosine":
        value = 0.5 * (1 + math.cos(math.pi * fraction))
    elif fraction < RISE:
        value = 1 + (START - 1) * 0.5 * (1 + math.cos(math.pi * fraction / RISE))
    else:
        value = END + (1 - END) * 0.5 * (1 + math.cos(math.pi * (fraction - RISE) / (1 - RISE)))
    return value * min(1.0, fraction / warm_up) if warm_up else value
