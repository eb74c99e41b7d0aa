"""A module of flowkit imports only from the rows above its own."""

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent / "flowkit"

LINES_AT_MOST = 450

METHODS_AT_MOST = 40
"""What one reader can hold, a class's bases counted."""

LAYERS: dict[str, tuple[str, ...]] = {
    "words": (
        "errors",
        "codec",
        "identity",
        "resource_names",
        "clock",
        "references",
        "masking",
        "known_secrets",
        "suggestions",
        "schema_paths",
        "option_checks",
        "long_values",
        "blobs",
        "media",
        "messages",
        "events",
        "observers",
        "run_reports",
        "context",
        "message_parts",
        "notebook",
        "schema_words",
        "history",
    ),
    "tools": ("tools", "targets", "mcp_client"),
    "graph": ("graph",),
    "stores": ("stores", "cache", "journal"),
    "pools": ("pools",),
    "engine": ("executor",),
    "models": ("models", "assemble"),
    "runs": ("runs",),
    "agent": ("agent",),
    "recipes": ("recipes",),
    "edges": ("__main__", "cli", "display", "measure", "exports", "web", "mcp", "apps", "telemetry", "queues"),
}
"""The rows, from the words that everybody uses to the edges that nobody imports; a name covers its submodules."""

BESIDE = ("testing",)
"""May import everything; nothing imports it, except the models' scripted double, which tests share."""

FREE = ("",)
"""`flowkit/__init__.py` names every public thing, but imports it only when it is used."""


def list_modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "templates" not in path.parts)


def module_name(path: Path) -> str:
    """`models.openai` for `flowkit/models/openai.py`, the empty text for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def find_row(module: str) -> str | None:
    head = module.split(".")[0]
    for row, names in LAYERS.items():
        if head in names:
            return row
    return "beside" if head in BESIDE else None


@cache
def find_imports(path: Path) -> tuple[str, ...]:
    """Every flowkit module that the file names in an import, wherever the import stands."""
    return tuple(_read_imports(path))


def _read_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("flowkit."):
                    yield alias.name.removeprefix("flowkit.")
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            if module == "flowkit":
                yield from (alias.name for alias in node.names if find_row(alias.name) is not None)
            elif module.startswith("flowkit."):
                package = ROOT.joinpath(*module.split(".")[1:])
                for alias in node.names:
                    # `from flowkit.cli import chat` names a module of a package, not the package
                    is_module = (package / f"{alias.name}.py").is_file()
                    yield (
                        f"{module}.{alias.name}".removeprefix("flowkit.")
                        if is_module
                        else module.removeprefix("flowkit.")
                    )


def test_modules_import_only_from_rows_above_their_own() -> None:
    for path in list_modules():
        check_imports(path)


def check_imports(path: Path) -> None:
    module = module_name(path)
    if module in FREE:
        return
    row = find_row(module)
    assert row is not None, f"flowkit.{module} stands in no row; add it to LAYERS"
    if row == "beside":
        return
    order = list(LAYERS)
    for imported in find_imports(path):
        other = find_row(imported)
        assert other is not None, f"flowkit.{module} imports flowkit.{imported}, which stands in no row"
        assert other != "beside", f"flowkit.{module} imports flowkit.{imported}"
        assert order.index(other) <= order.index(row), (
            f"flowkit.{module} ({row}) imports flowkit.{imported} ({other}), which is a row below it"
        )


def test_modules_do_not_import_in_a_circle() -> None:
    names = {module_name(path): path for path in list_modules()}
    imports = {
        name: {found for found in find_imports(path) if found in names} - {name, ""} for name, path in names.items()
    }
    done: set[str] = set()
    for start in imports:
        trail = _find_circle(start, imports, done, [])
        assert trail is None, "a circle of imports: " + " -> ".join(trail or [])


def test_packages_do_not_import_in_a_circle() -> None:
    """To import a module runs its package first, so a circle of packages breaks for whoever begins at the wrong one."""
    imports: dict[str, set[str]] = {}
    for path in list_modules():
        package = module_name(path).split(".")[0]
        others = {found.split(".")[0] for found in find_imports(path)} - {package, ""}
        imports[package] = imports.get(package, set()) | others
    done: set[str] = set()
    for start in imports.keys() - {""}:
        trail = _find_circle(start, imports, done, [])
        assert trail is None, "a circle of packages: " + " -> ".join(trail or [])


def _find_circle(name: str, imports: dict[str, set[str]], done: set[str], trail: list[str]) -> list[str] | None:
    if name in trail:
        return [*trail[trail.index(name) :], name]
    if name in done:
        return None
    for imported in sorted(imports[name]):
        circle = _find_circle(imported, imports, done, [*trail, name])
        if circle is not None:
            return circle
    done.add(name)
    return None


def test_a_circle_is_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set[str]()}
    assert _find_circle("a", imports, set(), []) == ["b", "c", "b"]
    assert _find_circle("d", imports, set(), []) is None


def test_no_module_imports_for_type_checking_only() -> None:
    for path in list_modules():
        assert "TYPE_CHECKING" not in path.read_text(), f"{path.name}: a circle of imports in disguise"


def test_every_name_stands_in_one_row() -> None:
    names = sorted(name for row in LAYERS.values() for name in row)
    assert all(first != second for first, second in pairwise(names))


def find_methods(kind: type) -> set[str]:
    """The methods and properties of a class, those of its bases in the package with them."""
    return {
        method
        for base in kind.__mro__
        if base.__module__.startswith("flowkit")
        for method, value in vars(base).items()
        # An operator says what it is by its sign.
        if not method.startswith("__")
        and (inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod)))
    }


class Base:
    __module__ = "flowkit.base"

    def one(self) -> None: ...


class Kind(Base):
    __module__ = "flowkit.kind"
    field = 3

    @property
    def two(self) -> None: ...


def test_methods_are_counted_with_those_of_the_bases() -> None:
    assert find_methods(Kind) == {"one", "two"}


def test_no_class_has_more_methods_than_a_reader_can_hold() -> None:
    for path in list_modules():
        name = ".".join(part for part in ("flowkit", module_name(path)) if part)
        with suppress(ImportError):  # a package that it needs isn't installed
            check_classes(importlib.import_module(name))


def check_classes(module: ModuleType) -> None:
    name = module.__name__
    for kind in vars(module).values():
        if not inspect.isclass(kind) or kind.__module__ != name:
            continue
        own = find_methods(kind)
        assert len(own) <= METHODS_AT_MOST, f"{name}.{kind.__name__} has {len(own)} methods: compose it of objects"


def test_no_module_is_longer_than_a_subject() -> None:
    for path in list_modules():
        lines = len(path.read_text().splitlines())
        assert lines <= LINES_AT_MOST, f"{path.name} has {lines} lines: split it by subject"


SHARED_NAMES = {
    "anthropic": "that vendor's API: what users name, and its wire",
    "as_tool": "a whole agent or recipe as one tool",
    "blobs": "large values, each kept under the hash of its bytes",
    "calls": "the calls that go through this package",
    "checks": "what something is checked by, one after another",
    "core": "the class that its package is about",
    "decorator": "what stands above a function",
    "entries": "what is kept of one thing while it lives",
    "failures": "what went wrong on the other side, in our words",
    "inventory": "what lies in a cache, for people",
    "link": "the connections to a server that keeps things",
    "log": "what happened, in order, and who writes it down",
    "offers": "what somebody is told that they may use",
    "options": "what may be said of the thing that its package is about",
    "plan": "all that a run is made of, found out before it begins",
    "reading": "how what was written is read",
    "records": "what is known of runs, as values",
    "results": "what came of something, as JSON",
    "run": "one run, as its package holds it",
    "schema": "the tables of a journal",
    "server": "what serves others, as a process",
    "settings": "what the thing is made with",
    "settling": "how what ran ends",
    "standalone": "the same without a run around it",
    "steps": "the steps of a recipe",
    "store": "a journal's database",
    "upkeep": "what is cleared away in a journal",
    "words": "how values are said in a line",
    "worker": "what runs work for others",
    "writing": "how what is kept is written",
}
"""The module names that stand in several packages, and the one subject that each has in all of them."""


def find_unexplained_names(modules: Iterable[str]) -> list[str]:
    """The modules that share a name with no subject; the command line's are named for its commands."""
    places: dict[str, list[str]] = {}
    for module in modules:
        if "." in module and not module.startswith("cli."):
            places.setdefault(module.rpartition(".")[2], []).append(module)
    return [name for name, found in places.items() if len(found) > 1 and name not in SHARED_NAMES for name in found]


def test_a_module_name_stands_once_for_each_subject() -> None:
    modules = [module_name(path) for path in list_modules() if path.name != "__init__.py"]
    assert find_unexplained_names(modules) == []
    ends = {module.rpartition(".")[2] for module in modules}
    assert not SHARED_NAMES.keys() - ends, "names that no module has any more"


def test_a_name_for_two_subjects_is_found() -> None:
    modules = ["executor.table", "measure.table", "agent.plan", "recipes.plan", "cli.table", "identity"]
    assert find_unexplained_names(modules) == ["executor.table", "measure.table"]


TOLD_AS_EVENTS = ("TextDelta", "ThinkingDelta")
"""What a model yields, and the event that tells it: the one name that two public classes share on purpose."""


CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
"""A class that stands in no other; parsing every module for it would take seconds."""


def find_shared_class_names(sources: Iterable[str]) -> list[str]:
    """The names that several public classes have; a private one is known in its own module only."""
    classes = Counter(name for source in sources for name in CLASS.findall(source))
    return sorted(name for name, count in classes.items() if count > 1 and not name.startswith("_"))


def test_a_class_name_means_one_thing() -> None:
    assert find_shared_class_names(path.read_text() for path in list_modules()) == sorted(TOLD_AS_EVENTS)


def test_a_class_name_for_two_things_is_found() -> None:
    sources = ["class Job: ...\nclass _Walk: ...", "class Job(int): ...\nclass _Walk: ...", "class Place: ..."]
    assert find_shared_class_names(sources) == ["Job"]


FILE_IN_BACKTICKS = re.compile(r"`([\w/]+\.py)`")
EXAMPLES = {"path.py", "chat.py"}
"""Names that pages give to a reader's own files."""


def list_pages() -> list[Path]:
    return [*sorted((ROOT.parent / "docs").rglob("*.md")), ROOT.parent / "CONTRIBUTING.md"]


def find_missing_files(text: str) -> list[str]:
    """The files a page names that are nowhere: a name may leave out the folders that it stands in."""
    top = ROOT.parent
    known = [
        path.relative_to(top).as_posix()
        for folder in ("flowkit", "recipes", "scripts", "tests")
        for path in (top / folder).rglob("*.py")
    ]
    return [
        name
        for name in FILE_IN_BACKTICKS.findall(text)
        if name not in EXAMPLES and not any(f"/{path}".endswith(f"/{name}") for path in known)
    ]


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    assert find_missing_files(page.read_text()) == []


PACKAGE_IN_MAP = re.compile(r"^\| `flowkit/(\w+)` \|", re.MULTILINE)


def test_the_map_of_the_house_has_every_package() -> None:
    packages = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    assert sorted(PACKAGE_IN_MAP.findall((ROOT.parent / "CONTRIBUTING.md").read_text())) == packages


METHOD_IN_BACKTICKS = re.compile(r"`([A-Z]\w+)\.(\w+)`")


def find_missing_methods(text: str, classes: dict[str, ast.ClassDef]) -> list[str]:
    """The methods a page names, as `Class.method`, that aren't in the executor."""
    return [
        f"{kind}.{method}"
        for kind, method in METHOD_IN_BACKTICKS.findall(text)
        if kind not in classes
        or method
        not in {node.name for node in classes[kind].body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    ]


def test_every_method_in_the_life_of_a_call_exists() -> None:
    text = (ROOT.parent / "CONTRIBUTING.md").read_text().split("## The life of a call")[1]
    classes = find_classes("executor")
    assert find_missing_methods(text, classes) == []
    assert find_missing_methods("`Gates.drain`, `Gates.fly`, `Gate.drain`", classes) == ["Gates.fly", "Gate.drain"]
    assert "`Gates.drain`" in text


def test_a_file_that_is_nowhere_is_found() -> None:
    assert find_missing_files("`executor/core.py`, `core.py`, `executor/score.py`, `path.py`") == ["executor/score.py"]


def find_classes(package: str) -> dict[str, ast.ClassDef]:
    """The classes of a package's modules, by name."""
    return {
        node.name: node
        for path in sorted((ROOT / package).glob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }


def find_handed_up(classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """Where an object of the package hands itself, or a method of its own, to one that it makes."""
    for kind in classes.values():
        methods = {node.name for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        for call in ast.walk(kind):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in classes:
                continue
            for given in [*call.args, *(keyword.value for keyword in call.keywords)]:
                # A method that is called here hands its result; one in a lambda is called later, from below.
                called = (
                    ()
                    if isinstance(given, ast.Lambda)
                    else [n.func for n in ast.walk(given) if isinstance(n, ast.Call)]
                )
                for node in ast.walk(given):
                    if node in called:
                        continue
                    is_method = (
                        isinstance(node, ast.Attribute)
                        and isinstance(node.value, ast.Name)
                        and node.value.id == "self"
                        and node.attr in methods
                    )
                    if is_method:
                        yield f"{kind.name} hands {ast.unparse(node)} to {call.func.id}"


def test_no_object_of_the_executor_hands_its_methods_to_one_below_it() -> None:
    classes = find_classes("executor")
    assert "Gates" in classes
    assert not list(find_handed_up(classes))
    assert not [name for name, kind in classes.items() if "abstractmethod" in ast.unparse(kind)]


def test_an_object_that_hands_its_method_down_is_found() -> None:
    source = """
class Low:
    def __init__(self, tell): ...
class High:
    def __init__(self): self.low = Low(tell=lambda: self.ended())
    def ended(self): ...
"""
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    assert list(find_handed_up(classes)) == ["High hands self.ended to Low"]


EXECUTOR = (
    ("outcomes", "phases", "resources", "slots", "threads"),
    ("plan", "standalone"),
    ("worker",),
    ("entries",),
    ("contexts", "current", "made_names", "read_scope", "pooled", "retries", "seals", "table"),
    ("stuck_waiters",),
    ("settling", "circles", "lending"),
    ("intake", "approvals", "sharing", "shared_runs", "tool_attempts"),
    ("controls",),
    ("gates",),
    ("workers",),
    ("core",),
    ("graph_runs",),
)
"""The rows of the executor, from what calls nobody to who calls all."""


def test_a_module_of_the_executor_imports_only_from_rows_above_its_own() -> None:
    rows = {name: number for number, row in enumerate(EXECUTOR) for name in row}
    for path in (ROOT / "executor").glob("*.py"):
        if path.stem == "__init__":
            continue
        for found in find_imports(path):
            if found.startswith("executor."):
                other = found.split(".")[1]
                assert rows[other] < rows[path.stem], f"executor/{path.name} imports {other}, a row below it"
