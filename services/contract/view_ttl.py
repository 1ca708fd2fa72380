"""How long a state lives in Redis after its last event, in wall time: as long as it can still say something.

Once every window of a view has passed, its state says what it would say of nothing. If that is the declared
default of each feature, it makes no difference whether the state is there, and it may go: TTL = MARGIN x
(longest window + slack). A view that looks at all time, or says something else of nothing, keeps its states
for ENTITY_TTL_S.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from services.contract import redis_keys
from services.contract.feature_view import FeatureView
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_state import ViewState

_SECOND_US = 1_000_000
# Event time may run slower than the wall, in a replay that is paused for instance.
MARGIN = 2
MIN_TTL_S = 3_600


@lru_cache(maxsize=1024)
def ttl_s(view: FeatureView) -> int:
    """Seconds."""
    if any(not feature.window_us for feature in view.features) or not _default_when_passed(view):
        return redis_keys.ENTITY_TTL_S
    needed_us = (view.window_hops + view.slack_hops + 1) * view.hop_us
    return min(max(MARGIN * needed_us // _SECOND_US, MIN_TTL_S), redis_keys.ENTITY_TTL_S)


def _default_when_passed(view: FeatureView) -> bool:
    """Whether a state whose windows have all passed says what no state does."""
    plan = plan_of(view)
    passed = ViewState(plan)
    passed.values[2] = 0
    at_us = np.full(2, (view.window_hops + 2) * view.hop_us)
    candidate = {name: np.zeros(2, np.uint64) for name in view.operands}
    said = read(view, records_of(plan, [passed.pack(), None]), at_us, candidate).values
    return bool((said[0] == said[1]).all())
