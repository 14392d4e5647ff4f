"""The reservation: the customer's order, the text that was signed for it, and the signatures.

It creates a pool (its `pool_id` is 0) or extends one. The signed text, `json`, is binding; `data_reservation` repeats
it for programs, so the two must agree. Signatures are Ed25519 over the text's UTF-8 bytes.
"""

import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, NoReturn, Self

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import Pool
from pool_daemon.errors import ReservationError, VerificationError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

NODE_CHARACTERS: Final = 100
"""The beginning of a node's id that an error repeats; a customer decides how long it is."""

DATA_ZEROES: Final = {"pool_id": 0, "cus": 0, "sus": 0, "ipv4us": 0, "node_ids": None, "currencies": None}
ZEROES: Final = {
    "id": 0,
    "json": "",
    "data_reservation": DATA_ZEROES,
    "customer_tid": 0,
    "customer_signature": "",
    "sponsor_tid": 0,
    "sponsor_signature": "",
}
"""A reservation's fields, and their values where a document or JSON lacks them."""


class Signer(StrEnum):
    """Who signs a reservation; both sign the same text."""

    CUSTOMER = "customer"
    SPONSOR = "sponsor"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationData:
    """The order: whole unit seconds for a pool, on nodes, payable in currencies."""

    pool_id: int
    cus: int
    sus: int
    ipv4us: int
    node_ids: list[str] | None
    currencies: list[str] | None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the data; a missing or null field is 0, or null for an array, and unknown fields are ignored.

        Raises ReservationError, naming the field that is of another type or negative.
        """
        filled = fields.filled(document, DATA_ZEROES)
        return cls(
            pool_id=fields.whole(filled, "pool_id", ReservationError),
            cus=_units(filled, "cus"),
            sus=_units(filled, "sus"),
            ipv4us=_units(filled, "ipv4us"),
            node_ids=fields.texts(filled, "node_ids", ReservationError),
            currencies=fields.texts(filled, "currencies", ReservationError),
        )

    @classmethod
    def from_signed_text(cls, text: str) -> Self:
        """Read the text that was signed, at least as strictly as the explorer.

        Integers must be written as such: 1.0 and true are refused. The explorer accepts names in any case, and of a
        repeated name the last one. Here the case is free, too, but a repeated name is refused, because two programs
        might read two amounts from it. Arrays hold strings only. Raises ReservationError.
        """
        signed = _parsed(text)
        for name, value in signed.items():
            if isinstance(value, float) and name in DATA_ZEROES:
                raise ReservationError(f"json: {name} is {value}, not an integer")
        try:
            return cls.from_json(signed)
        except ReservationError as error:
            raise ReservationError(f"json: {error}") from None

    def to_signed_text(self) -> str:
        """Return the text to sign, as the explorer's clients write it: JSON in the order of the fields, no spaces."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    def differing_field(self, other: Self) -> str | None:
        """Return the first field in which two differ, None if they agree; an empty array equals a null one."""
        for name in DATA_ZEROES:
            if (getattr(self, name) or None) != (getattr(other, name) or None):
                return name
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A reservation as the database and the interface hold it, unchecked.

    `reservation_id` is `_id` in the database and `id` in JSON; 0 is replaced by a new id at the first save. Signatures
    are hexadecimal.
    """

    reservation_id: int
    json: str
    data_reservation: ReservationData
    customer_tid: int
    customer_signature: str
    sponsor_tid: int
    sponsor_signature: str

    def validate(self) -> None:
        """Check that the reservation is complete and that its data agrees with the signed text.

        The signatures themselves are not verified. Raises ReservationError, naming the problem.
        """
        if self.customer_tid == 0:
            raise ReservationError("customer_tid is required")
        if not self.customer_signature:
            raise ReservationError("customer_signature is required")
        if self.sponsor_tid != 0 and not self.sponsor_signature:
            raise ReservationError("sponsor_signature is required, as there is a sponsor_tid")
        self.validate_nodes()
        self.validate_text()

    def validate_nodes(self) -> None:
        """Check that a node is named, and none twice.

        Raises ReservationError.
        """
        node_ids = self.data_reservation.node_ids or []
        if not node_ids:
            raise ReservationError("node_ids must name a node")
        if len(set(node_ids)) < len(node_ids):
            raise ReservationError("node_ids names a node twice")

    def validate_text(self) -> None:
        """Check that the signed text says the same as the data.

        Raises ReservationError, naming the field in which they differ.
        """
        name = self.data_reservation.differing_field(ReservationData.from_signed_text(self.json))
        if name is not None:
            raise ReservationError(f"json and data_reservation differ in {name}")

    def validate_extension(self, pool: Pool) -> None:
        """Check that the reservation may extend that pool.

        Every node of the pool must be in the reservation, which must add units or a node. Anyone may extend
        any pool. Raises ReservationError.
        """
        data = self.data_reservation
        if data.pool_id != pool.pool_id:
            raise ReservationError(f"it is for pool {data.pool_id}, not for pool {pool.pool_id}")
        asked, present = set(data.node_ids or ()), set(pool.node_ids or ())
        missing = sorted(present - asked)
        if missing:
            raise ReservationError(f"node_ids must name every node of the pool, {missing[0][:NODE_CHARACTERS]!r} too")
        if not (data.cus or data.sus or data.ipv4us or asked - present):
            raise ReservationError("it adds neither units nor a node to the pool")

    def signed(self, signer: Signer, seed: bytes) -> Self:
        """Return the reservation with one signature more, made with an Ed25519 seed of 32 bytes.

        An earlier signature of that signer is replaced. Raises ReservationError if the signer is not named, or if text
        and data differ: what is signed must be what is done.
        """
        if getattr(self, f"{signer}_tid") == 0:
            raise ReservationError(f"{signer}_tid is 0: the reservation names no {signer} who could sign")
        self.validate_text()
        try:
            signature = SigningKey(seed).sign(self.json.encode()).signature
        except UnicodeEncodeError:
            raise ReservationError("json is no text that could be signed") from None
        if signer is Signer.CUSTOMER:
            return replace(self, customer_signature=signature.hex())
        return replace(self, sponsor_signature=signature.hex())

    def verify(self, pk: str) -> None:
        """Verify the customer's signature against the customer's public key (64 hexadecimal digits).

        Raises VerificationError if the signature is invalid, or if it, the key or the text is malformed.
        """
        _verify("customer", self.json, self.customer_signature, pk)

    def verify_sponsor(self, pk: str) -> None:
        """Verify the sponsor's signature, over the same text, against the sponsor's public key.

        Raises VerificationError as `verify` does.
        """
        _verify("sponsor", self.json, self.sponsor_signature, pk)

    def verify_customer_and_sponsor(self, customer_pk: str, sponsor_pk: str) -> None:
        """Verify both signatures, each against its own public key.

        Raises VerificationError, which names both if both are invalid.
        """
        failures: list[str] = []
        for verify, pk in ((self.verify, customer_pk), (self.verify_sponsor, sponsor_pk)):
            try:
                verify(pk)
            except VerificationError as error:
                failures.append(str(error))
        if failures:
            raise VerificationError("; ".join(failures))

    def to_json(self) -> dict[str, Any]:
        """Return the reservation as JSON, names and order as in the explorer; an array that was null stays null."""
        document = asdict(self)
        return {"id": document.pop("reservation_id"), **document}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a reservation; a missing or null field is 0 or empty, and unknown fields are ignored.

        Raises ReservationError, naming the field that is of another type.
        """
        filled = fields.filled(document, ZEROES)
        data = filled["data_reservation"]
        if not isinstance(data, Mapping):
            raise ReservationError("data_reservation is no document")
        return cls(
            reservation_id=fields.whole(filled, "id", ReservationError),
            json=fields.text(filled, "json", ReservationError),
            data_reservation=ReservationData.from_json(data),
            customer_tid=fields.whole(filled, "customer_tid", ReservationError),
            customer_signature=fields.text(filled, "customer_signature", ReservationError),
            sponsor_tid=fields.whole(filled, "sponsor_tid", ReservationError),
            sponsor_signature=fields.text(filled, "sponsor_signature", ReservationError),
        )


def public_key(seed: bytes) -> str:
    """Return the public key that belongs to an Ed25519 seed of 32 bytes, in hexadecimal."""
    return SigningKey(seed).verify_key.encode().hex()


def _units(document: Mapping[str, Any], name: str) -> int:
    units = fields.whole(document, name, ReservationError)
    if units < 0:
        raise ReservationError(f"{name} is {units}, below 0")
    return units


def _parsed(text: str) -> dict[str, Any]:
    """Parse a JSON object into its fields, their names folded to lower case."""
    try:
        # Objects become tuples of their pairs, so that a repeated name is visible.
        pairs = json.loads(text, object_pairs_hook=tuple, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ReservationError(f"json cannot be parsed: {error}") from None
    if not isinstance(pairs, tuple):
        raise ReservationError("json is no object")
    signed: dict[str, Any] = {}
    for written, value in pairs:
        name = written.casefold()
        if name in signed and name in DATA_ZEROES:
            raise ReservationError(f"json names {name} twice")
        signed[name] = value
    return signed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _verify(signer: str, text: str, signature: str, pk: str) -> None:
    key = _unhexed(f"{signer}'s public key", pk, KEY_BYTES)
    signed = _unhexed(f"{signer}'s signature", signature, SIGNATURE_BYTES)
    try:
        VerifyKey(key).verify(text.encode(), signed)
    except UnicodeEncodeError:
        raise VerificationError("json is no text that could have been signed") from None
    except BadSignatureError:
        raise VerificationError(f"{signer}'s signature does not hold") from None


def _unhexed(what: str, digits: str, size_bytes: int) -> bytes:
    try:
        # Unlike bytes.fromhex, this rejects spaces, as the explorer does.
        decoded = binascii.unhexlify(digits)
    except (TypeError, ValueError):
        raise VerificationError(f"{what} is not hexadecimal") from None
    if len(decoded) != size_bytes:
        raise VerificationError(f"{what} has {len(decoded)} bytes, not {size_bytes}")
    return decoded
