"""Grace as agreed with single owners, in `pool-daemon-policies`: what operators set, and what the daemon reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity import fields
from pool_daemon.capacity.grace import GracePolicy
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.plain_text import shown_id
from pool_daemon.settings.grace import LONGEST_SECONDS, TYPES, Grace, duration_seconds
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pool_changes import Write
from pool_daemon.store.records import EVENTS, Actor, EventKind, Subject, Why, envelope
from pool_daemon.store.sessions import Session

POLICIES: Final = "pool-daemon-policies"

GRACE_TYPES: Final[Mapping[str, WorkloadType]] = {name: WorkloadType[name.upper()] for name in TYPES}
"""The types of workloads that drain a pool, by the names of their settings."""


def default_policy(settings: Grace) -> GracePolicy:
    """Return the policy of owners with whom nothing is agreed."""
    seconds = {int(GRACE_TYPES[name]): seconds for name, seconds in settings.seconds.items()}
    until_told_seconds = settings.until_told_seconds if settings.until_told else 0
    return GracePolicy(seconds, duration_seconds(settings.budget), until_told_seconds)


@dataclass(frozen=True, slots=True)
class OwnerPolicy:
    """For how long an owner's workloads stay after their resource has run out, in seconds by type.

    A type that is not named, and a budget of None, has the default. `by` set it at the unix second `at`, for a reason.
    """

    owner: int
    grace: Mapping[WorkloadType, int]
    budget_seconds: int | None
    reason: str
    by: str
    at: int

    @property
    def grace_by_name(self) -> dict[str, int]:
        """The seconds by the name of the type."""
        return {kind.name.lower(): seconds for kind, seconds in self.grace.items()}

    def over(self, default: GracePolicy) -> GracePolicy:
        """Return the default with what is agreed in its place."""
        budget = default.budget_seconds if self.budget_seconds is None else self.budget_seconds
        agreed = {int(kind): seconds for kind, seconds in self.grace.items()}
        return replace(default, seconds={**default.seconds, **agreed}, budget_seconds=budget)


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies by owner, and the reason for each document that is none, by its id."""

    by_owner: Mapping[int, OwnerPolicy]
    malformed: Mapping[Any, str]


class PolicyStore:
    """The collection `pool-daemon-policies`: a document for each owner with a grace of its own.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._policies = database.collection(POLICIES)
        self._events = database.collection(EVENTS)

    async def read_all(self) -> Policies:
        """Read all policies: operators write them, so they are few and short."""
        with translated("reading the policies of owners"):
            return policies_of(await self._policies.find({}, sort=[("_id", 1)]).to_list(None))

    async def set(self, policy: OwnerPolicy, *, actor: Actor, dry_run: bool = False) -> tuple[Write, ...]:
        """Have a policy in place of the one that its owner had, with a record; return the writes.

        After StoreUnavailableError it may have been written; another call writes the same, with another record.
        """
        document = _document(policy)
        subject, why = Subject(customer_tid=policy.owner), Why(policy.reason)
        record = envelope(EventKind.POLICY_SET, at=policy.at, actor=actor, subject=subject, why=why)
        record["policy"] = document

        async def write(session: Session) -> None:
            await self._policies.replace_one({"_id": document["_id"]}, document, upsert=True, session=session)
            await self._events.insert_one(record, session=session)

        if not dry_run:
            await self._database.transact(write, doing=f"setting the policy of customer {policy.owner}")
        return Write(POLICIES, {"_id": document["_id"]}, document), Write(EVENTS, None, record)

    async def unset(self, owner: int, *, actor: Actor, reason: str, at: int, dry_run: bool = False) -> bool:
        """Remove an owner's policy, malformed or not, with a record; return whether there was one."""
        query = {"_id": Int64(owner)}
        subject, why = Subject(customer_tid=owner), Why(reason)
        record = envelope(EventKind.POLICY_UNSET, at=at, actor=actor, subject=subject, why=why)

        async def remove(session: Session) -> bool:
            result = await self._policies.delete_one(query, session=session)
            if result.deleted_count:
                await self._events.insert_one(record, session=session)
            return bool(result.deleted_count)

        if not dry_run:
            return await self._database.transact(remove, doing=f"removing the policy of customer {owner}")
        with translated("reading the policies of owners"):
            return await self._policies.find_one(query, {"_id": 1}) is not None


def _document(policy: OwnerPolicy) -> dict[str, Any]:
    budget = {} if policy.budget_seconds is None else {"budget": Int64(policy.budget_seconds)}
    return {
        "_id": Int64(policy.owner),
        "grace": {name: Int64(seconds) for name, seconds in policy.grace_by_name.items()},
        **budget,
        "reason": policy.reason,
        "by": policy.by,
        "at": Int64(policy.at),
    }


def policies_of(documents: Iterable[Mapping[str, Any]]) -> Policies:
    """Read documents; one that is malformed costs no other."""
    by_owner: dict[int, OwnerPolicy] = {}
    malformed: dict[Any, str] = {}
    for document in documents:
        try:
            policy = _policy(document)
        except UnreadableDocumentError as error:
            malformed[shown_id(document.get("_id"))] = str(error)
        else:
            by_owner[policy.owner] = policy
    return Policies(by_owner, malformed)


def _policy(document: Mapping[str, Any]) -> OwnerPolicy:
    """Read a policy: strict in what decides, lenient in who set it when and why."""
    grace = document.get("grace")
    if not isinstance(grace, Mapping):
        raise UnreadableDocumentError("grace is missing, or no document of seconds by type")
    if unknown := sorted(set(grace) - set(GRACE_TYPES)):
        raise UnreadableDocumentError(f"grace.{shown_id(unknown[0])} is none of {', '.join(GRACE_TYPES)}")
    has_budget = document.get("budget") is not None
    return OwnerPolicy(
        owner=fields.whole(document, "_id", UnreadableDocumentError),
        grace={kind: _seconds(grace, name) for name, kind in GRACE_TYPES.items() if name in grace},
        budget_seconds=_seconds(document, "budget") if has_budget else None,
        reason=str(document.get("reason") or ""),
        by=str(document.get("by") or ""),
        at=fields.whole_or_none(document, "at") or 0,
    )


def _seconds(document: Mapping[str, Any], name: str) -> int:
    seconds = fields.whole(document, name, UnreadableDocumentError)
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise UnreadableDocumentError(f"{name} is {seconds} s, not from 0 to {LONGEST_SECONDS}")
    return seconds
