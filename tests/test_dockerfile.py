"""The Dockerfile, read and run without a container engine (tools/run_dockerfile.py)."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from run_dockerfile import Runner, Stage, parse  # noqa: E402

DOCKERFILE = ROOT / "Dockerfile"


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return {stage.name: stage for stage in parse(DOCKERFILE.read_text("utf-8"))}


def test_the_last_stage_is_the_slim_runtime(stages: dict[str, Stage]) -> None:
    assert list(stages) == ["build", "test", "runtime"]
    assert re.fullmatch(r"python:3\.\d+-slim", stages["runtime"].base)


def test_the_runtime_compiles_nothing_and_asks_no_registry(stages: dict[str, Stage]) -> None:
    commands = [i.value for i in stages["runtime"].instructions if i.keyword == "RUN"]
    assert not [c for c in commands if "apt-get" in c or "gcc" in c]
    assert all("--no-index" in c for c in commands if "pip install" in c)
    assert [i.words for i in stages["runtime"].instructions if i.keyword == "COPY"] == [["/wheels", "/wheels"]]


def test_the_runtime_runs_as_a_user_who_owns_nothing(stages: dict[str, Stage]) -> None:
    keywords = [i.keyword for i in stages["runtime"].instructions]
    user = stages["runtime"].last("USER")
    assert user is not None and user.value.isdigit() and int(user.value) >= 10_000
    assert keywords.index("USER") < keywords.index("ENTRYPOINT")
    assert "RUN" not in keywords[keywords.index("USER") :]


def test_no_stage_holds_a_secret(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        for instruction in stage.instructions:
            if instruction.keyword in ("ENV", "ARG"):
                assert not re.search("secret|password|token|key", instruction.value, re.IGNORECASE)
        assert not [i for i in stage.instructions if i.keyword == "COPY" and i.words[0] in (".", "./")]


def test_what_is_copied_exists(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        for instruction in stage.instructions:
            if instruction.keyword == "COPY" and "from" not in instruction.options:
                assert all((ROOT / source).exists() for source in instruction.words[:-1])


def test_an_image_that_is_built_on_no_named_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first FROM"):
        parse("RUN true\n")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_stages_commands_run_and_the_service_starts(
    stages: dict[str, Stage], tmp_path: Path, embedded_url: str, unique_prefix: str
) -> None:
    runner = Runner(list(stages.values()), ROOT, tmp_path)
    runner.run("test")
    shell = runner.run("runtime")
    entry, health = stages["runtime"].last("ENTRYPOINT"), stages["runtime"].last("HEALTHCHECK")
    assert entry is not None and health is not None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        environment = {
            **shell.environment,
            "FASTVERIFY_STORE": embedded_url,
            "FASTVERIFY_SECRET": bytes(range(32)).hex(),
            "FASTVERIFY_KEY_PREFIX": unique_prefix,
            "FASTVERIFY_PORT": str(listening.getsockname()[1]),
        }
        program = shutil.which(entry.words[0], path=environment["PATH"])
        assert program is not None and Path(program).is_relative_to(shell.root)
        service = subprocess.Popen(
            [program, "serve", f"--fd={listening.fileno()}", "--exit-with-stdin"],
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
    with service:
        check = json.loads(health.value.partition("CMD ")[2])
        # The socket listens already, so the first answer is waited for, and says whether the service is ready.
        healthy = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert service.stdin is not None
        service.stdin.close()
        assert service.wait(20) == 0
    assert healthy.returncode == 0, healthy.stderr
