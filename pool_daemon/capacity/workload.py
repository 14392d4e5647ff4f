"""The numbers in a workload's document for its type and its next action.

The daemon reads of such a document: `_id` and `pool_id`, `next_action` and `workload_type` as below, `node_id` for
its records, and the fields of its type from which `cloud_units` computes what it drains.
"""

from enum import IntEnum


class NextAction(IntEnum):
    """The pending action of a workload: the value of `next_action`."""

    CREATE = 0
    SIGN = 1
    PAY = 2
    DEPLOY = 3
    DELETE = 4
    INVALID = 5
    DELETED = 6
    MIGRATED = 7


class WorkloadType(IntEnum):
    """The type of a workload: the value of `workload_type`."""

    ZDB = 0
    CONTAINER = 1
    VOLUME = 2
    NETWORK = 3
    KUBERNETES = 4
    PROXY = 5
    REVERSE_PROXY = 6
    SUB_DOMAIN = 7
    DOMAIN_DELEGATE = 8
    GATEWAY4TO6 = 9
    NETWORK_RESOURCE = 10
    PUBLIC_IP = 11
    VIRTUAL_MACHINE = 12
