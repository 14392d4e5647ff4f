"""What the daemon says, and how."""

from typing import Literal

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Log(Section):
    """What the daemon says, and how."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json is one object a line, for machines; console is for people; auto takes console on "
        "a terminal and json elsewhere.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least that is said. info tells every pool that expires and every change of state; "
        "debug tells every pass.",
    )
    detail: Literal["workload", "pool"] = Field(
        default="workload",
        description="Whether each workload that is decommissioned gets a line of its own, or each pool one for all.",
    )
