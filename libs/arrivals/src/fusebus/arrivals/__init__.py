"""Finds uploads that no event announced."""

from fusebus.arrivals.announcement import COPY_PENDING, event_of
from fusebus.arrivals.listing import Listing, Lists
from fusebus.arrivals.search import Hidden, Missing, Report, search

__all__ = ["COPY_PENDING", "Hidden", "Listing", "Lists", "Missing", "Report", "event_of", "search"]
