"""The Kubernetes files: rendered, held to the schemas of the oldest and the newest version, and to the daemon's settings."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemon_process import environment
from deploy.files import DEPLOY, PROJECT, run, tool

from pool_daemon.settings import Settings, load_settings

KUBERNETES = DEPLOY / "kubernetes"
MONITORING = KUBERNETES / "components/monitoring"
RULES = DEPLOY / "prometheus/rules.yaml"
OLDEST, NEWEST = "1.27", "1.37"
ROOMS = ("base", "overlays/example")
STOP_MARGIN_SECONDS = 10
"""What a stop may take besides the pass under way."""

Object = dict[str, Any]


@cache
def rendered(room: str) -> str:
    """Render a folder with whichever program here knows components."""
    if (tool_there := shutil.which("kubectl")) and "components" in _fields_known_to(tool_there):
        return run("kubectl", "kustomize", KUBERNETES / room)
    return run("kustomize", "build", KUBERNETES / room)
