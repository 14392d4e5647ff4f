"""The container file, read and followed as far as that goes without an image to start from."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deploy.machine import Machine


class Step(NamedTuple):
    """One instruction, such as RUN, and what it says."""

    name: str
    text: str


class ContainerFile:
    """Two stages: one that builds, and one that becomes the image."""

    def __init__(self, path: Path) -> None:
        comments_gone = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        lines = re.sub(r"\\\n\s*", "", comments_gone).splitlines()
        steps = [Step(*line.split(maxsplit=1)) for line in lines if line]
        second = max(number for number, step in enumerate(steps) if step.name == "FROM")
        self._build, self._image = steps[:second], steps[second:]

    def copied(self) -> list[str]:
        """List what comes from the project's folder."""
        return [source for step in self._build if step.name == "COPY" for source in shlex.split(step.text)[:-1]]

    def says(self, name: str) -> str:
        """Read the image's only instruction of that name."""
        (text,) = (step.text for step in self._image if step.name == name)
        return text

    def command(self) -> list[str]:
        """What the image runs if nothing else is asked for."""
        words: list[str] = json.loads(self.says("ENTRYPOINT")) + json.loads(self.says("CMD"))
        return words

    def health_check(self) -> list[str]:
        """What tells whether it is well."""
        words: list[str] = json.loads(self.says("HEALTHCHECK").partition(" CMD ")[2])
        return words

    def environment(self) -> list[str]:
        """List the assignments that hold in the image."""
        return shlex.split(self.says("ENV"))

    def build(self, machine: Machine, *, context: str, settings: Mapping[str, str]) -> None:
        """Follow the stage that builds on a machine that shows the project's folder at `context`."""
        environment = [f"{name}={value}" for name, value in settings.items()]
        folder = "/"
        for step in self._build:
            if step.name == "ENV":
                environment += shlex.split(step.text)
            elif step.name == "WORKDIR":
                folder = step.text
                machine.run("mkdir", "--parents", folder)
            elif step.name == "COPY":
                *sources, target = shlex.split(step.text)
                machine.run("cp", "--recursive", *(f"{context}/{source}" for source in sources), f"{folder}/{target}")
            elif step.name == "RUN":
                machine.run("env", f"--chdir={folder}", *environment, "sh", "-c", step.text)
