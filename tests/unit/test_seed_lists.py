"""An address that begins with mongodb+srv:// while nobody tells what it stands for."""

from collections.abc import Iterator
from typing import Any

import pytest
from dns import resolver
from dns.exception import DNSException, Timeout

from pool_daemon.errors import ConfigurationError, StoreUnavailableError
from pool_daemon.store.client import connect


class Resolver(resolver.Resolver):
    """Answers no question, and counts them."""

    def __init__(self, error: DNSException) -> None:
        super().__init__(configure=False)
        self.error = error
        self.asked = 0

    def resolve(self, *_: Any, **__: Any) -> resolver.Answer:
        self.asked += 1
        raise self.error


@pytest.fixture(params=[Timeout, resolver.NXDOMAIN, resolver.NoNameservers])
def names(request: pytest.FixtureRequest) -> Iterator[Resolver]:
    """Put the process's resolver in its place, as the library offers to."""
    own, resolver.default_resolver = resolver.default_resolver, Resolver(request.param())
    yield resolver.default_resolver
    resolver.default_resolver = own


async def test_a_database_whose_seed_list_is_not_to_be_had_is_away_and_asked_for_anew_each_time(
    names: Resolver,
) -> None:
    database = connect(uri="mongodb+srv://db.pools.example/", name="explorer")
    for tries in (1, 2):
        with pytest.raises(StoreUnavailableError):
            await database.ping()
        assert names.asked == tries
    database.close()


@pytest.mark.parametrize("uri", ["mongodb+srv://db.pools.example:27017/", "mongodb+srv://a.example,b.example/"])
def test_a_seed_list_whose_address_makes_no_sense_is_a_wrong_setting(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        connect(uri=uri, name="explorer")
