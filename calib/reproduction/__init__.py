"""Published results, obtained again from the published parameters.

`experiments` holds the set-ups of the paper as tables, `devices` makes their device models, `published` holds the
published numbers, `runner` trains and evaluates, `results` gathers, `report` and `figures` set ours beside theirs.
"""

from calib.reproduction.runner import reproduce as reproduce
