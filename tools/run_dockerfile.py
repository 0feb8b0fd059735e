"""Runs a Dockerfile's stages where there is no container engine: each in a scratch directory, on this machine's Python.

    python tools/run_dockerfile.py [--stage NAME] [--scratch DIRECTORY] [Dockerfile]

A base image becomes a fresh virtual environment. Absolute paths are moved below the stage's directory, COPY copies, RUN
runs in a shell with the stage's ENV and WORKDIR. Commands that would change the machine itself (apt-get, useradd) are
recorded and not run: what they bring has to be here already. So this proves the commands, their order and the files,
and not the base image.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path

#: They change the machine, so they are recorded instead.
RECORDED = ("apt-get", "useradd")
_ABSOLUTE = re.compile(r"(?<![^\s=\"'])/(?=[A-Za-z])")


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``COPY``, its ``--options``, and the rest."""

    keyword: str
    options: dict[str, str]
    value: str

    @property
    def words(self) -> list[str]:
        """The value as a list: the JSON form, or words."""
        return list(json.loads(self.value)) if self.value.startswith("[") else self.value.split()


@dataclass(frozen=True)
class Stage:
    """One ``FROM`` and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, keyword: str) -> Instruction | None:
        """The instruction of this kind that counts."""
        return next((i for i in reversed(self.instructions) if i.keyword == keyword), None)


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile, with global ARGs put in.

    Raises:
        ValueError: an instruction before the first FROM, or a FROM without a name.
    """
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        keyword, _, rest = line.partition(" ")
        options = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            options[match[1]] = match[2]
            rest = rest[match.end() :]
        instruction = Instruction(keyword.upper(), options, rest.strip())
        match instruction:
            case Instruction(keyword="ARG") if not stages:
                name, _, default = instruction.value.partition("=")
                arguments[name] = default
            case Instruction(keyword="FROM"):
                base, as_word, name = instruction.value.split()
                if as_word.upper() != "AS":
                    raise ValueError(f"a stage without a name: {line}")
                for argument, value in arguments.items():
                    base = base.replace(f"${{{argument}}}", value)
                stages.append(Stage(name, base))
            case _ if not stages:
                raise ValueError(f"before the first FROM: {line}")
            case _:
                stages[-1].instructions.append(instruction)
    return stages


@dataclass
class Shell:
    """Where a stage's commands run."""

    root: Path
    workdir: Path
    environment: dict[str, str]


@dataclass
class Runner:
    """Runs stages below ``scratch``, with files from ``context``; each once, and first those that it needs."""

    stages: list[Stage]
    context: Path
    scratch: Path
    _shells: dict[str, Shell] = field(default_factory=dict)

    def run(self, name: str) -> Shell:
        """Run a stage. One that is built on another goes on in that one's directory."""
        if name not in self._shells:
            stage = self._stage(name)
            shell = self._shells[name] = self._begin(stage)
            for instruction in stage.instructions:
                say(f"{name}: {instruction.keyword} {instruction.value}")
                self._step(shell, instruction)
        return self._shells[name]

    def recorded(self) -> list[str]:
        """The command lines that were not run."""
        logs = [shell.root / "recorded" for shell in self._shells.values()]
        return [line for log in dict.fromkeys(logs) if log.exists() for line in log.read_text("utf-8").splitlines()]

    def _begin(self, stage: Stage) -> Shell:
        if any(other.name == stage.base for other in self.stages):
            base = self.run(stage.base)
            return Shell(base.root, base.workdir, dict(base.environment))
        root = self.scratch / stage.name
        return Shell(root, root, self._fresh(root))

    def _step(self, shell: Shell, instruction: Instruction) -> None:
        match instruction.keyword:
            case "WORKDIR":
                shell.workdir = shell.root / instruction.value.lstrip("/")
                shell.workdir.mkdir(parents=True, exist_ok=True)
            case "ENV":
                shell.environment |= dict(pair.split("=", 1) for pair in instruction.words)
            case "COPY":
                source = self.run(instruction.options["from"]).root if "from" in instruction.options else self.context
                _copy(instruction.words, source, shell)
            case "RUN":
                command = _ABSOLUTE.sub(f"{shell.root}/", instruction.value)
                subprocess.run(["sh", "-euc", command], cwd=shell.workdir, env=shell.environment, check=True)

    def _fresh(self, root: Path) -> dict[str, str]:
        shims = root / "shims"
        shims.mkdir(parents=True)
        for name in RECORDED:
            shim = shims / name
            shim.write_text(f'#!/bin/sh\necho "{name} $*" >>"{root}/recorded"\n', "utf-8")
            shim.chmod(0o755)
        venv.create(root / "venv", with_pip=True)
        keep = {
            k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TMPDIR") or k.startswith(("PIP_", "SSL_"))
        }
        keep |= {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy") or k == "FASTVERIFY_VECTORS"}
        return {**keep, "PATH": f"{shims}:{root}/venv/bin:{os.environ['PATH']}"}

    def _stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def _copy(words: list[str], origin: Path, shell: Shell) -> None:
    *sources, target = words
    destination = shell.root / target.lstrip("/") if target.startswith("/") else shell.workdir / target
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "node_modules")
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, destination, dirs_exist_ok=True, ignore=ignore)
        else:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, destination)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"--> {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the stages asked for; every stage by default."""
    options = argparse.ArgumentParser(description="Run a Dockerfile's stages without a container engine.")
    options.add_argument("dockerfile", nargs="?", type=Path, default=Path("Dockerfile"))
    options.add_argument("--stage", action="append", help="this stage and what it needs (default: all)")
    options.add_argument("--scratch", type=Path, help="kept; default: a temporary directory, removed")
    chosen = options.parse_args()
    stages = parse(chosen.dockerfile.read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="dockerfile-") as temporary:
        runner = Runner(stages, chosen.dockerfile.resolve().parent, chosen.scratch or Path(temporary))
        for name in chosen.stage or [stage.name for stage in stages]:
            runner.run(name)
        for line in runner.recorded():
            say(f"not run here: {line}")


if __name__ == "__main__":
    main()
