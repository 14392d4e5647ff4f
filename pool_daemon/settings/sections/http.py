"""Where metrics, health and the page are served."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Http(Section):
    """Metrics, health and a page that shows both, for whoever may reach the address; nothing can be changed there."""

    enabled: bool = Field(
        default=True,
        description="Whether to listen at all. Without it neither Prometheus nor a probe can ask.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. The default is for this machine alone; in a container it is "
        '"0.0.0.0", or "::" for IPv6. Whoever reaches it sees the ids of pools and customers.',
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes any free one and logs which.",
    )
