"""How large a loss in paired answers can still be: a one-sided bound that holds for few flips, too."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm


def largest_drop(lost: float, gained: float, n: float, level: float = 0.95) -> float:
    """Upper one-sided confidence bound of the drop in n paired 0/1 answers (a fraction).

    The score bound of Tango (1998): the drop at which the count of flips would be too small by the normal quantile, with
    the variance that belongs to that drop. A t interval has no width without flips; this bound is then about 2.7 / n.
    1 where even the loss of every item is not excluded. Counts that are expected only need not be whole.
    """
    z = float(norm.ppf(level))

    def score(drop: float) -> float:
        """Standard errors by which the observed drop is below this one."""
        a, b = 2 * n, (2 * n - lost + gained) * drop - lost - gained
        share = (math.sqrt(max(b * b + 4 * a * gained * drop * (1 - drop), 0.0)) - b) / (2 * a)
        variance = n * (2 * max(share, 0.0) + drop * (1 - drop))
        return (n * drop - lost + gained) / math.sqrt(variance) if variance > 0 else math.inf

    observed = (lost - gained) / n
    if observed >= 1:
        return 1.0
    return float(brentq(lambda drop: score(drop) - z, observed + 1e-12, 1.0 - 1e-12))
