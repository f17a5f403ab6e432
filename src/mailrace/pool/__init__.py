"""Policies that decide when work may run: rates and retries."""

from mailrace.pool.limiter import Limiter, NoLimit, RateLimiter, SharedRateLimiter
from mailrace.pool.rate import Rate, Schedule
from mailrace.pool.retry import RetrySchedule

__all__ = [
    "Limiter",
    "NoLimit",
    "Rate",
    "RateLimiter",
    "RetrySchedule",
    "Schedule",
    "SharedRateLimiter",
]
