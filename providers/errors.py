"""What can go wrong at a provider: a closed set, each class saying what the engine does next.

ProviderError
├── NoCapacity        try the next offer
├── QuotaExceeded     try the next offer; the user must ask for quota
├── InsufficientFunds stop: the account cannot pay
├── AuthFailed        stop: the key is wrong or missing
├── InvalidRequest    stop: ours, a bug
├── RateLimited       the same again, after `retry_after_s`
├── ProviderDown      the same again, later
├── OutcomeUnknown    ask `owned()` before anything else is rented
├── Preempted         take the next offer and resume
└── NotFound          the provider has never heard of it, or no longer knows it
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from trainer_image.trainer.errors import FtcloudError


class Then(Enum):
    """What the engine does after an error."""

    NEXT_OFFER = "next offer"
    AGAIN = "again"
    LOOK_FIRST = "look first"
    GIVE_UP = "give up"


class ProviderError(FtcloudError):
    """Never raised itself; `provider_words` keeps what the provider said, for the log."""

    then: ClassVar[Then] = Then.GIVE_UP

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        provider_words: str = "",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.provider_words = provider_words
        self.retry_after_s = retry_after_s


class NoCapacity(ProviderError):
    then = Then.NEXT_OFFER


class QuotaExceeded(ProviderError):
    then = Then.NEXT_OFFER


class InsufficientFunds(ProviderError):
    pass


class AuthFailed(ProviderError):
    pass


class InvalidRequest(ProviderError):
    pass


class RateLimited(ProviderError):
    then = Then.AGAIN


class ProviderDown(ProviderError):
    then = Then.AGAIN


class OutcomeUnknown(ProviderError):
    then = Then.LOOK_FIRST


class Preempted(ProviderError):
    then = Then.NEXT_OFFER


class NotFound(ProviderError):
    then = Then.NEXT_OFFER
