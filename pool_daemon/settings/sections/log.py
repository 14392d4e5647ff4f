"""The daemon's log."""

from typing import Literal

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Log(Section):
    """The daemon's log."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json writes one object a line, for machines; console is for people; auto chooses console on a "
        "terminal and json elsewhere.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Lowest level that is logged. info logs every pool that expires and every change of state; debug "
        "logs every pass.",
    )
    detail: Literal["workload", "pool"] = Field(
        default="workload",
        description="Whether each decommissioned workload gets a line of its own, or each pool one for all its "
        "workloads.",
    )
