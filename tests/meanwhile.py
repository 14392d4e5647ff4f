"""What happens just before a command of the daemon's reaches the server, however slow the machine is."""

from collections.abc import Callable

from pymongo.monitoring import CommandListener, CommandStartedEvent


class Meanwhile(CommandListener):
    """Acts before a client sends its first command of a name, which waits until that is done.

    The act must not need a lock that the client's transaction has: it would wait for ever.
    """

    def __init__(self, command: str, act: Callable[[], object]) -> None:
        self._command = command
        self._act = act
        self._begun = False
        self.acted = False

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == self._command and not self._begun:
            self._begun = True
            self._act()
            self.acted = True

    def succeeded(self, event: object) -> None:
        """Go on."""

    def failed(self, event: object) -> None:
        """Go on."""
