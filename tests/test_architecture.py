"""The house rules that a program can check: who imports what, how a room is entered, how large it may be."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("farm", "nodes", "stitching", "dashboard", "reelfarm")
MAX_LINES = 400
#: Source files of one kind in a folder.
MAX_FILES = 15
#: Of imports inside a sub-package: a file that imports none of its neighbours is on the first.
MAX_LEVELS = 6

#: room -> the rooms it may import.
DOORS: dict[str, set[str]] = {
    "farm": set(),
    "nodes": {"farm", "stitching"},
    "stitching": set(),
    "dashboard": {"farm"},
    "reelfarm": {"farm", "nodes", "stitching", "dashboard"},
}
#: The command line may enter every room.
DOORLESS = {
    "farm/cli/main.py",
    "farm/cli/machine_commands.py",
    "farm/cli/page_commands.py",
    "farm/cli/video_commands.py",
}

#: library -> the files that may import it.
KEEPERS: dict[str, set[str]] = {
    "ray": {"nodes/ray/driver.py", "nodes/ray/actors.py"},
    "av": {
        "stitching/video_io.py",
        "stitching/sound/opening.py",
        "stitching/sound/probing.py",
        "stitching/sound/track.py",
        "stitching/source/decoding.py",
        "stitching/source/animation.py",
        "stitching/source/conversion.py",
        "stitching/source/remux.py",
    },
}
#: library -> the rooms that may import it.
HOMES: dict[str, set[str]] = {
    "torch": {"nodes"},
    "diffusers": {"nodes"},
    "transformers": {"nodes"},
    "cv2": {"nodes", "stitching"},
    "PIL": {"nodes", "stitching"},
    "fastapi": {"dashboard"},
    "starlette": {"dashboard"},
    "nicegui": {"dashboard"},
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def importing(path: Path) -> list[ast.AST]:
    """What imports in a file, wherever in it. Whole trees are not kept, or garbage is looked for in them."""
    return [node for node in ast.walk(parsed(path)) if may_import(node)]


def may_import(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            return True
    return False


@cache
def imported(path: Path) -> frozenset[str]:
    """The top-level names a file imports, wherever in it, and by text where a call takes a name."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in importing(path):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.ImportFrom(level=level) if level:
                pytest.fail(f"{name_of(path)}: a relative import; name the room")
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module.split(".")[0]


ALL = sources(*ROOMS)


def module_of(path: Path) -> str:
    dotted = name_of(path).removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__")


MODULES = {module_of(path): path for path in ALL}


def is_package(module: str) -> bool:
    return module in MODULES and MODULES[module].name == "__init__.py"


def package_of(module: str) -> str:
    return module if is_package(module) else module.rpartition(".")[0]


#: Sub-packages: rooms within rooms. ``nodes.engines`` holds some of its own.
PACKAGES = sorted(module for module in MODULES if is_package(module) and module not in ROOMS)


def entries_of(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """What a file imports of this house, as (module or package, name), wherever in it and however."""
    for node in nodes:
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in ROOMS:
                yield from ((module, alias.name) for alias in node.names)
            case ast.Import(names=names):
                yield from ((alias.name, "") for alias in names if alias.name.split(".")[0] in ROOMS)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ) if module.split(".")[0] in ROOMS:
                yield module, ""


@cache
def entries(path: Path) -> list[tuple[str, str]]:
    return list(entries_of(importing(path)))


def run_by(importer: str, module: str, name: str) -> set[str]:
    """The modules of this house that an import runs: the packages above what it names, too.

    Not those above the importer itself, which run before it does.
    """
    named = f"{module}.{name}" if f"{module}.{name}" in MODULES else module
    above = {named.rsplit(".", n)[0] for n in range(named.count(".") + 1)} | {module}
    return {each for each in above & MODULES.keys() if not f"{importer}.".startswith(f"{each}.")}


def graph_of(entered: dict[str, list[tuple[str, str]]]) -> dict[str, set[str]]:
    """module -> modules that its imports run, under TYPE_CHECKING and inside functions too."""
    return {m: set().union(*(run_by(m, *entry) for entry in found)) for m, found in entered.items()}


@cache
def graph() -> dict[str, set[str]]:
    return graph_of({module: entries(path) for module, path in MODULES.items()})


def circle_in(imports: dict[str, set[str]]) -> tuple[str, ...] | None:
    """Modules that import each other, each the next and the last the first; None where there are none."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> tuple[str, ...] | None:
        if module in way:
            return (*way[way.index(module) :], module)
        if module not in done:
            for other in sorted(imports[module] & imports.keys()):
                if found := visit(other, (*way, module)):
                    return found
            done.add(module)
        return None

    return next((found for module in imports if (found := visit(module, ()))), None)


@cache
def offered(package: str) -> frozenset[str]:
    """``__all__`` of a sub-package."""
    for node in parsed(MODULES[package]).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in ALL} == set(ROOMS)
    assert "numpy" in imported(ROOT / "stitching" / "stitch.py")
    assert "farm.state.events" in graph()["farm.state.state"]
    assert "nodes.hosting" in run_by("nodes.engines.memory.vram", "nodes.hosting", "render_here")
    assert "Ledger" in offered("farm.state")
    assert {"farm.planning", "nodes.engines.common", "dashboard.api"} <= set(PACKAGES)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def test_a_room_is_entered_through_its_doors_only() -> None:
    wrong = [
        f"{name_of(path)} imports {room}, and may import {DOORS[room_of(path)] or 'no other room'}"
        for path in ALL
        if name_of(path) not in DOORLESS
        for room in (imported(path) & set(ROOMS)) - {room_of(path)} - DOORS[room_of(path)]
    ]
    assert wrong == []


def trespass(importer: str, entered: list[tuple[str, str]]) -> str | None:
    """The first import over a sub-package's border that is none of a name it offers, and what to do."""
    home = package_of(importer)
    for module, name in entered:
        if module in ROOMS and not name:
            return f"imports the room {module} whole: import what is needed of it"
        named = f"{module}.{name}" if f"{module}.{name}" in MODULES else module
        package = package_of(named)
        if package in ROOMS or f"{home}.".startswith(f"{package}."):
            continue
        pair = f"imports {f'{name} of {module}' if name else module}"
        if module not in PACKAGES or not name:
            return f"{pair}: import from {package}, which offers what others may use"
        if name not in offered(module):
            return f"{pair}, which offers {', '.join(sorted(offered(module)))}"
        if is_family(home) and is_family(module):
            return f"{pair}: a model family knows no other; what both need belongs to nodes.engines.common"
    return None


def is_family(package: str) -> bool:
    return f"{package}.family" in MODULES and package != "nodes.engines"


def test_a_sub_package_is_entered_by_the_names_it_offers() -> None:
    """A room's own modules, and those of the packages a file lives in, are entered by themselves."""
    found = ((name_of(path), trespass(module_of(path), entries(path))) for path in ALL)
    assert [f"{name} {wrong}" for name, wrong in found if wrong] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_sub_package_says_what_lives_there_and_offers_what_is_used(package: str) -> None:
    said = ast.get_docstring(parsed(MODULES[package])) or ""
    what, _, enters = said.partition("\n\n")
    assert what.endswith("."), f"{package} does not say what lives there"
    assert enters.endswith("."), f"{package} does not say what may enter"
    unused = {name for name in offered(package) if (package, name) not in entered_for()}
    assert unused == set(), f"{package} offers what nobody enters for"


@cache
def entered_for() -> set[tuple[str, str]]:
    """(package, name) that something outside the package imports, tests and benchmarks included."""
    inside = {(module, entry) for module, path in MODULES.items() for entry in entries(path)}
    outside = {("", entry) for path in sources("tests", "benchmarks", "models") for entry in entries(path)}
    return {entry for module, entry in inside | outside if not module or package_of(module) != entry[0]}


def test_every_folder_of_a_room_is_a_package() -> None:
    assert [name_of(p.parent) for p in ALL if not (p.parent / "__init__.py").is_file()] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    if circle := circle_in(graph()):
        pytest.fail(f"modules import each other in a circle: {' -> '.join(circle)}")


@pytest.mark.parametrize(
    ("importer", "line", "said"),
    [
        ("nodes.engines.memory.vram", "from nodes.hosting import examine", ""),
        ("farm.running.cluster", "from farm.running.coordinator import Coordinator", ""),
        ("farm.planning.plan", "if TYPE_CHECKING:\n    from farm.state import Job", ""),
        ("farm.state.state", "importlib.import_module('farm.scheduling')", ""),
        ("farm.scheduling.retry", "from farm.state.state import Job", "import from farm.state"),
        ("farm.scheduling.retry", "import farm.state.state", "import from farm.state"),
        ("farm.scheduling.retry", "import farm", "the room farm whole"),
        ("farm.scheduling.retry", "from farm.state import state", "which offers"),
        ("farm.scheduling.retry", "from farm.state import *", "which offers"),
        ("farm.scheduling.retry", "importlib.import_module('farm.state.state')", "import from farm.state"),
        ("nodes.engines.instant.engine", "from nodes.engines.i2vgen_xl import FAMILY", "knows no other"),
    ],
)
def test_what_breaks_a_rule_is_found(importer: str, line: str, said: str) -> None:
    """``said`` is empty for a circle, else of the refusal."""
    added = list(entries_of(ast.walk(ast.parse(line))))
    wrong = trespass(importer, added)
    if said:
        assert wrong is not None
        assert said in wrong
    else:
        assert circle_in(graph() | {importer: graph()[importer] | graph_of({importer: added})[importer]})


@pytest.mark.parametrize("package", [*ROOMS, *PACKAGES])
def test_imports_inside_a_sub_package_are_few_levels_deep(package: str) -> None:
    inside = {m for m in MODULES if package_of(m) == package and m != package}

    @cache
    def level(module: str) -> int:
        return 1 + max((level(other) for other in graph()[module] & inside), default=0)

    deepest = max(inside, key=level, default=None)
    assert deepest is None or level(deepest) <= MAX_LEVELS, f"{deepest} is on level {level(deepest)}"


@pytest.mark.parametrize("folder", [*ROOMS, "tests", "benchmarks", "models"])
def test_no_folder_holds_a_heap(folder: str) -> None:
    kinds = (".py", ".js", ".css", ".html")
    found = (p for p in (ROOT / folder).rglob("*") if p.suffix in kinds and p.name != "__init__.py")
    counts = Counter((name_of(p.parent), p.suffix) for p in found if "vendor" not in p.parts)
    assert counts, folder
    assert {where: count for where, count in counts.items() if count > MAX_FILES} == {}


def test_a_library_is_imported_where_it_lives_only() -> None:
    found = [(path, library) for path in ALL for library in imported(path)]
    wrong = [
        f"{name_of(path)} imports {library}, which is for {KEEPERS.get(library) or HOMES[library]} alone"
        for path, library in found
        if name_of(path) not in KEEPERS.get(library, {name_of(path)})
        or room_of(path) not in HOMES.get(library, {room_of(path)})
    ]
    assert wrong == []


@pytest.mark.parametrize("library", KEEPERS)
def test_every_keeper_of_a_library_needs_it(library: str) -> None:
    assert {name_of(path) for path in ALL if library in imported(path)} == KEEPERS[library]


EVERYTHING = sources(*ROOMS, "tests", "benchmarks", "examples", "models")


def not_one_idea(path: Path) -> str | None:
    text = path.read_text()
    if path.name in ("utils.py", "helpers.py", "common.py", "misc.py"):
        return "is named after nothing"
    if room_of(path) in ROOMS and len(text.splitlines()) > MAX_LINES:
        return f"has {len(text.splitlines())} lines, {MAX_LINES} at most"
    if text.strip() and "from __future__ import annotations" not in text and text.count("\n") >= 3:
        return "lacks from __future__ import annotations"
    return None


def test_a_file_is_one_idea() -> None:
    found = ((name_of(path), not_one_idea(path)) for path in EVERYTHING)
    assert [f"{name} {wrong}" for name, wrong in found if wrong] == []


#: Written in pieces, so that this file does not hold what it looks for.
UNFINISHED = re.compile(rf"\b({'TO' + 'DO'}|{'FIX' + 'ME'}|{'X' + 'XX'})\b")
MACHINE_PATH = re.compile(rf"((?<!\w){'/wo' + 'rk/'}|{'/ro' + 'ot/'}|/home/\w|/Users/\w|[A-Z]:\\Users)")
TEXTS = [
    *EVERYTHING,
    *sorted(p for p in (ROOT / "docs").rglob("*") if p.suffix in (".md", ".txt")),
    *sorted(p for p in ROOT.glob("*") if p.suffix in (".md", ".toml", ".yaml", ".yml")),
]


def test_a_file_is_finished_and_knows_no_machine() -> None:
    found = [(path, each) for path in TEXTS for each in (UNFINISHED, MACHINE_PATH)]
    said = ((name_of(path), pattern.search(path.read_text())) for path, pattern in found)
    assert [f"{name} says {match.group()!r}" for name, match in said if match] == []


def test_the_tests_are_no_package() -> None:
    assert [name_of(path) for path in (ROOT / "tests").rglob("__init__.py")] == []
