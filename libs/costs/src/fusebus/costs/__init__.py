"""What nodes cost, may cost and did cost; exported here is what is pure: settings, refresh and bill are modules."""

from fusebus.costs.budget import SHARES, Alert, Budget, MonthSoFar, Verdict, Waiting, what_happens
from fusebus.costs.daily import DailyHours
from fusebus.costs.forecast import forecast, month_before, month_bounds, month_of
from fusebus.costs.prices import (
    HOURS_PER_MONTH,
    DailyPrice,
    Price,
    PriceError,
    PriceList,
    Rates,
    ServicePrices,
    Term,
    load_prices,
    save_prices,
    starting_prices,
)
from fusebus.costs.sizes import SIZES, UnknownVmSize, VmSize, full_name, same_family, vm_size

__all__ = [
    "HOURS_PER_MONTH",
    "SHARES",
    "SIZES",
    "Alert",
    "Budget",
    "DailyHours",
    "DailyPrice",
    "MonthSoFar",
    "Price",
    "PriceError",
    "PriceList",
    "Rates",
    "ServicePrices",
    "Term",
    "UnknownVmSize",
    "Verdict",
    "VmSize",
    "Waiting",
    "forecast",
    "full_name",
    "load_prices",
    "month_before",
    "month_bounds",
    "month_of",
    "same_family",
    "save_prices",
    "starting_prices",
    "vm_size",
    "what_happens",
]
