"""Adds workloads to pools, for trying the daemon out, and reads what a workload takes from the command line."""

import argparse
import asyncio
import re
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from pool_daemon.capacity.workload import CUSTOM_SIZE, FREE_TYPES, HDD, SSD, WorkloadType, cloud_units
from pool_daemon.commands import int64
from pool_daemon.commands.arguments import line
from pool_daemon.commands.connection import connection
from pool_daemon.commands.pools_edit import add_change_arguments, make_change
from pool_daemon.errors import ExitCode, UnitsError
from pool_daemon.settings import load_settings
from pool_daemon.store.pool_edits import Edit, PoolEdits

EXAMPLES = (
    "pool-daemon workloads add --pool 1 container:cpu=2,memory=4096",
    "pool-daemon workloads add --pool 1 volume:size=100,disk_type=hdd --node n1",
    "pool-daemon workloads add --pool 1 public_ip --dry-run",
)

NOT_OURS: Final = (
    "database.uri: that database may be an explorer's, and workloads come from there: one that is added here drains "
    "its pool and runs nowhere; --although-explorer adds it all the same"
)

DISK_TYPES: Final[Mapping[str, int]] = {"hdd": HDD, "ssd": SSD}

FORMS: Final[Mapping[WorkloadType, tuple[str, ...]]] = {
    WorkloadType.CONTAINER: ("cpu=CORES,memory=MIB", "[,disk=MIB]", "[,disk_type=ssd|hdd]"),
    WorkloadType.VOLUME: ("size=GIB", "[,disk_type=ssd|hdd]"),
    WorkloadType.ZDB: ("size=GIB", "[,disk_type=ssd|hdd]"),
    WorkloadType.KUBERNETES: ("size=1..18",),
    WorkloadType.VIRTUAL_MACHINE: ("size=1..18",),
    WorkloadType.PUBLIC_IP: (),
    **{kind: () for kind in WorkloadType if kind in FREE_TYPES},
}
"""What each type takes: first what it needs, then what it may have."""

CUSTOM: Final = ("cru=CORES,mru=GIB,sru=GIB",)
"""What a machine takes whose size is none of the table."""

MACHINES: Final = (WorkloadType.KUBERNETES, WorkloadType.VIRTUAL_MACHINE)

_NAME: Final = re.compile(r"(\w+)=")
_NUMBER: Final = re.compile(r"\d{1,12}", re.ASCII)


def workload(text: str) -> dict[str, Any]:
    """Read a workload, as in container:cpu=2,memory=4096: its type, and the fields that its units depend on.

    Sizes of disks are GiB, a container's memory and disk MiB. Anything else is a usage error, which names the form.
    """
    name, _, rest = text.partition(":")
    kind = next((each for each in FORMS if each.name.lower() == name), None)
    if kind is None:
        names = ", ".join(each.name.lower() for each in FORMS)
        raise argparse.ArgumentTypeError(f"must be one of {names}, and what it takes, as in volume:size=100")
    form = CUSTOM if kind in MACHINES and "cru=" in rest else FORMS[kind]
    given = dict(_pair(kind, form, each) for each in rest.split(",")) if rest else {}
    required, allowed = set(_NAME.findall("".join(form[:1]))), set(_NAME.findall("".join(form)))
    if not required <= given.keys() <= allowed:
        raise _misfit(kind, form)
    document = {"workload_type": int(kind), **_fields(kind, given)}
    try:
        cloud_units(document)
    except UnitsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return document


def _pair(kind: WorkloadType, form: tuple[str, ...], text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    number = DISK_TYPES.get(value) if name == "disk_type" else int(value) if _NUMBER.fullmatch(value) else None
    if number is None:
        raise _misfit(kind, form)
    return name, number


def _misfit(kind: WorkloadType, form: tuple[str, ...]) -> argparse.ArgumentTypeError:
    takes = "".join(form)
    custom = f" or {kind.name.lower()}:{CUSTOM[0]}" if kind in MACHINES and form != CUSTOM else ""
    return argparse.ArgumentTypeError(f"must be {kind.name.lower()}{f':{takes}' if takes else ''}{custom}")


def _fields(kind: WorkloadType, given: Mapping[str, int]) -> dict[str, Any]:
    disk_type = given.get("disk_type", SSD)
    match kind:
        case WorkloadType.CONTAINER:
            capacity = {"cpu": given["cpu"], "memory": given["memory"], "disk_size": given.get("disk", 0)}
            return {"capcity": capacity | {"disk_type": disk_type}}
        case WorkloadType.VOLUME:
            return {"size": given["size"], "type": disk_type}
        case WorkloadType.ZDB:
            return {"size": given["size"], "disk_type": disk_type}
        case WorkloadType.KUBERNETES | WorkloadType.VIRTUAL_MACHINE if "size" not in given:
            custom = {"cru": given["cru"], "mru": float(given["mru"]), "sru": float(given["sru"])}
            return {"size": CUSTOM_SIZE, "custom_size": custom}
        case _:
            return dict(given)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `add`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser(
        "add",
        help="one more workload that drains a pool",
        description="Add a deployed workload of the pool's owner to a pool, which it drains from now on. This is for "
        "trying the daemon out: where there is an explorer, workloads come from it, together with what its nodes need "
        "to run them. So only the mongod of the daemon's own is written to without --although-explorer.",
    )
    adding.add_argument("--pool", type=int64, required=True, metavar="ID", dest="pool_id", help="the pool's id")
    adding.add_argument(
        "workload", type=workload, metavar="TYPE:NAME=VALUE,…", help="what it is, as in container:cpu=2,memory=4096"
    )
    adding.add_argument("--node", type=line, metavar="ID", help="one of the pool's nodes (default: its first)")
    adding.add_argument(
        "--although-explorer", action="store_true", help="write to the database that database.uri names, too"
    )
    add_change_arguments(adding)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Add a workload; FAILED if the database may be an explorer's."""
    settings = load_settings(arguments.config)
    if settings.database.uri is not None and not (arguments.although_explorer or arguments.dry_run):
        print(f"pool-daemon workloads add: error: {NOT_OURS}", file=sys.stderr)
        return ExitCode.FAILED
    with connection(settings) as database:
        return asyncio.run(make_change(database, arguments, partial(_add, arguments)))


async def _add(arguments: argparse.Namespace, edits: PoolEdits, now: int) -> Edit:
    return await edits.add_workload(arguments.pool_id, arguments.workload, arguments.node, now)
