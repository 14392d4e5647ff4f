"""What a process uses, as the kernel counts it."""

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the processor time that the process has used so far."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the memory that the process uses, in megabytes."""
    return _kilobytes(pid, "VmRSS:") / 1024


def peak_memory_mb(pid: int) -> float:
    """Return the peak memory of the process, in megabytes."""
    return _kilobytes(pid, "VmHWM:") / 1024


def _kilobytes(pid: int, name: str) -> int:
    line = next(line for line in _proc(pid, "status").splitlines() if line.startswith(name))
    return int(line.split()[1])


def _proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
