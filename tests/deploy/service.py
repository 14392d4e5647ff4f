"""The installed unit on a booted machine, as `systemctl` and `journalctl` tell of it."""

from deploy.machine import Machine

NAME = "pool-daemon"
URI_FILE = "/etc/pool-daemon/database__uri"
CONFIG = "/etc/pool-daemon/config.toml"
DROP_IN = f"/etc/systemd/system/{NAME}.service.d/test.conf"

FIND_WRITABLE = """
import os, sys
for line in open("/proc/self/mounts"):
    folder = line.split()[1]
    if os.path.isdir(folder) and os.access(folder, os.W_OK):
        print(folder)
"""


class Service:
    """The unit; what its journal held before is not told again."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        # The cursor stands on a line that is not the unit's: behind one of its own, journalctl would skip the next.
        machine.run("systemd-cat", "--identifier=test", "echo", "a test begins")
        machine.run("journalctl", "--sync")
        mark = machine.run("journalctl", "--identifier=test", "--lines=1", "--show-cursor")
        self._cursor = mark.partition("cursor: ")[2].strip()

    def set_uri(self, uri: str | None) -> None:
        """Put the address of MongoDB where an operator puts it, or take it away."""
        if uri is None:
            self._machine.run("rm", URI_FILE)
        else:
            self._machine.write(URI_FILE, f"{uri}\n", mode="600")

    def set_config(self, text: str) -> None:
        """Replace its settings; the next test has those of the installation again."""
        self._machine.write(CONFIG, text)

    def override(self, *lines: str) -> None:
        """Replace the drop-in that changes the unit for a test."""
        self._machine.write(DROP_IN, "\n".join(["[Service]", *lines, ""]))
        self._machine.run("systemctl", "daemon-reload")

    def control(self, verb: str, *options: str) -> None:
        """Have systemd start it, stop it, and so on."""
        self._machine.run("systemctl", verb, *options, NAME)

    def attempt(self, verb: str) -> int:
        """Have systemd do what may fail; return the exit code of `systemctl`."""
        return self._machine.attempt("systemctl", verb, NAME).returncode

    def signal(self, name: str) -> None:
        """Send its main process a signal."""
        self.control("kill", "--kill-whom=main", f"--signal={name}")

    def tells(self, name: str) -> str:
        """Read one of its properties."""
        return self._machine.run("systemctl", "show", f"--property={name}", "--value", NAME).strip()

    def is_(self, state: str) -> bool:
        """Tell whether that is its state."""
        return self.tells("ActiveState") == state

    def restarts(self) -> int:
        """Count how often systemd has started it anew by itself."""
        return int(self.tells("NRestarts"))

    def journal(self, *, priority: str = "debug") -> str:
        """Read what it said, and what systemd said of it, of that priority and above or of a range."""
        self._machine.run("journalctl", "--sync")
        wanted = (f"--unit={NAME}", f"--cursor={self._cursor}", f"--priority={priority}")
        return self._machine.run("journalctl", "--no-pager", "--quiet", "--output=cat", *wanted)

    def command(self, *words: str, database_name: str) -> str:
        """Run one of the program's commands on the service's database, as the runbook says."""
        return self._machine.run(
            *("env", "POOL_DAEMON_SECRETS_DIR=/etc/pool-daemon", f"POOL_DAEMON_DATABASE__NAME={database_name}"),
            *("pool-daemon", *words, f"--config={CONFIG}"),
        )

    def writable_folders(self) -> list[str]:
        """List the mounts that its process may write to."""
        process = self.tells("MainPID")
        user = self.tells("UID")
        enter = ("nsenter", f"--target={process}", "--mount", f"--setuid={user}", f"--setgid={user}")
        return self._machine.run(*enter, "python3", "-c", FIND_WRITABLE).split()
