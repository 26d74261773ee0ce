"""The policy that sizes the fleet: `decide`, its values, and the forecast that feeds it."""

from fusebus.planning.demand import Demand, Due, KindDemand, Window
from fusebus.planning.fleet import Fleet, NodeCounts, PoolState, Quantiles, Refusal
from fusebus.planning.forecast import Arrivals
from fusebus.planning.limits import Limits, Pin, Quota
from fusebus.planning.plan import Late, Plan, PoolPlan
from fusebus.planning.policy import decide, same
from fusebus.planning.prices import PoolOffer, PriceChange, Prices
from fusebus.planning.releasing import LATE_WINDOW

__all__ = [
    "LATE_WINDOW",
    "Arrivals",
    "Demand",
    "Due",
    "Fleet",
    "KindDemand",
    "Late",
    "Limits",
    "NodeCounts",
    "Pin",
    "Plan",
    "PoolOffer",
    "PoolPlan",
    "PoolState",
    "PriceChange",
    "Prices",
    "Quantiles",
    "Quota",
    "Refusal",
    "Window",
    "decide",
    "same",
]
