"""`pool-daemon pools` as a process."""

import os
import subprocess
import sys


class Pools:
    """Runs the command on one database."""

    def __init__(self, uri: str, name: str) -> None:
        settings = {"POOL_DAEMON_DATABASE__URI": uri, "POOL_DAEMON_DATABASE__NAME": name}
        self._environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | settings

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pool_daemon", "pools", *arguments]
        return subprocess.run(command, check=False, text=True, capture_output=True, timeout=60, env=self._environment)

    def peak_mb(self, *arguments: str) -> float:
        """Return the most memory that a run took, in megabytes."""
        script = (
            "import resource, sys; from pool_daemon.cli import main; main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        command = [sys.executable, "-c", script, "pools", *arguments]
        asked = subprocess.run(command, check=True, text=True, capture_output=True, timeout=60, env=self._environment)
        return int(asked.stderr.splitlines()[-1]) / 1024
