"""The numbers that other programs write: they are fixed."""

from enum import IntEnum

import pytest

from pool_daemon.capacity.workload import NextAction, WorkloadType

ACTIONS = "create sign pay deploy delete invalid deleted migrated"
TYPES = (
    "zdb container volume network kubernetes proxy reverse_proxy sub_domain domain_delegate gateway4to6"
    " network_resource public_ip virtual_machine"
)


@pytest.mark.parametrize(("numbers", "names"), [(NextAction, ACTIONS), (WorkloadType, TYPES)])
def test_names_stand_for_the_numbers_that_are_their_places(numbers: type[IntEnum], names: str) -> None:
    assert [(member.name.lower(), member.value) for member in numbers] == [
        (name, place) for place, name in enumerate(names.split())
    ]
