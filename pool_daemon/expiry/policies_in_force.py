"""The grace that each owner has now: the default of the settings, with what is agreed with him in its place."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from pool_daemon.capacity.grace import GracePolicy
from pool_daemon.errors import StoreError
from pool_daemon.events import POLICIES_READ_FAILED, POLICY_MALFORMED, Teller
from pool_daemon.store.policies import Policies

INTERVAL_SECONDS: Final = 5.0
"""Between two readings: one query, whose answer is short."""


class PolicySource(Protocol):
    """Reads the policies of owners; see PolicyStore."""

    async def read_all(self) -> Policies:
        """Read all policies."""


class PoliciesInForce:
    """Keeps the policies of owners in memory, so that no settlement waits for them.

    `default` is the policy of the settings. `changed` is called after a change, for pools that are in grace may
    have another end. A reading that fails keeps what was known: it neither takes a grace away nor gives one. A
    malformed policy means the default, is told once, and stops nothing.
    """

    def __init__(
        self,
        *,
        source: PolicySource,
        default: GracePolicy,
        changed: Callable[[], None],
        observer: Teller,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._default = default
        self._changed = changed
        self._tell = observer.tell
        self._sleep = sleep
        self._known = Policies({}, {})

    def of(self, owner: int) -> GracePolicy:
        """Return the policy of an owner, as far as it is known."""
        policy = self._known.by_owner.get(owner)
        return self._default if policy is None else policy.over(self._default)

    async def load(self) -> None:
        """Read all policies.

        To succeed once before anything is settled: else an owner's workloads would go by the default. Raises
        StoreUnavailableError or StoreRefusedError.
        """
        found = await self._source.read_all()
        self._tell_malformed(found.malformed)
        before, self._known = self._known, found
        if found.by_owner != before.by_owner:
            self._changed()

    async def run(self) -> None:
        """Read them again for ever."""
        while True:
            await self._sleep(INTERVAL_SECONDS)
            try:
                await self.load()
            except StoreError as error:
                self._tell(POLICIES_READ_FAILED, reason=str(error))

    def _tell_malformed(self, malformed: Mapping[Any, str]) -> None:
        for owner, reason in malformed.items():
            if self._known.malformed.get(owner) != reason:
                self._tell(POLICY_MALFORMED, owner=owner, reason=reason)
