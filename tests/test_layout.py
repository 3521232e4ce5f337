"""The top level holds what it promises and nothing else, and imports go down the floors only."""

import ast
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[1]

TOP_LEVEL = {
    "client.py", "server.py", "collector.py", "mailer", "tests", "requirements.txt", "README.md",
    "success_request.log", "error_request.log",
}
HIDDEN = {".ci", ".env.example", ".gitignore"}  # these are there; more hidden ones may be
GENERATED = {"__pycache__", "venv"}
OF_ITS_USER = ("*_request.log?*", "*.key", "*.pem")  # rotated logs, and what the README has one make

# Every part of Mailer: floor → part → its modules. The modules inside a package belong to the package's part; any other
# module that is not here fails the test.
FLOORS = {
    3: {
        "scripts": {
            "client", "server", "collector", "mailer.environment", "mailer.launch", "mailer.statedir", "mailer.desk",
            "mailer.mailroom",
        },
        "sandbox": {"mailer.sandbox"},
    },
    2: {
        "intake": {"mailer.intake"},
        "collect": {"mailer.collect"},
        "transport": {"mailer.transport"},
        "patience": {"mailer.patience"},
        "disk": {"mailer.disk"},
        "smtp": {"mailer.smtp"},
        "imap": {"mailer.imap"},
        "journal": {"mailer.journal"},
        "position": {"mailer.position"},
        "sequence": {"mailer.sequence"},
        "console": {"mailer.console", "mailer.history", "mailer.streams", "mailer.translation"},
        "tls": {"mailer.tls"},
        "oauth": {"mailer.oauth"},
        "supervisor": {"mailer.supervisor"},
        "heap": {"mailer.heap"},
        "diagnostics": {"mailer.diagnostics"},
    },
    1: {
        "pure": {
            "mailer.settings", "mailer.settings_reader", "mailer.hosts", "mailer.config", "mailer.validation",
            "mailer.protocol", "mailer.compose", "mailer.sasl", "mailer.secrecy", "mailer.progress", "mailer.record",
            "mailer.reading",
        },
    },
    0: {"pure": {"mailer", "mailer.errors", "mailer.tickets", "mailer.steps"}},
}
SERVICES = {"intake", "collect"}
SHARED = {"patience", "disk"}  # a few lines about sockets, and about files, that more than one adapter needs

# What only adapters and scripts may touch, and what makes a module impure besides.
OUTSIDE = {"socket", "ssl", "smtplib", "imaplib", "sqlite3"}
IMPURE = OUTSIDE | {
    "os", "time", "threading", "subprocess", "select", "selectors", "random", "secrets", "shutil", "tempfile", "http",
    "urllib.request", "glob", "io",
}
IN_MEMORY = {"io.BytesIO", "io.StringIO"}  # of `io`, these touch nothing outside

PLACES = {
    module: (floor, part)
    for floor, parts in FLOORS.items()
    for part, modules in parts.items()
    for module in modules
}


def place(module: str) -> tuple[int, str]:
    """The floor and the part of a module."""
    package = ".".join(module.split(".")[:2])
    return PLACES.get(package, (-1, "no place"))


def sources() -> dict[str, Path]:
    """Every module of Mailer, by its name."""
    paths = [ROOT / script for script in ("client.py", "server.py", "collector.py")]
    paths += (ROOT / "mailer").rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, modules: set[str]) -> set[str]:
    """What a file imports, wherever in it: full names, of ours down to the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) or (set() if names <= IN_MEMORY else {node.module}) | names
    return found


SOURCES = sources()
IMPORTS = {module: imports(path, set(SOURCES)) for module, path in SOURCES.items()}


class LayoutTest(unittest.TestCase):
    def test_the_top_level_holds_the_scripts_the_package_and_nothing_else(self) -> None:
        names = {path.name for path in ROOT.iterdir() if not any(map(path.match, OF_ITS_USER))}
        self.assertEqual({name for name in names if not name.startswith(".")} - GENERATED, TOP_LEVEL)
        self.assertEqual(HIDDEN - names, set())

    def test_every_module_has_its_place(self) -> None:
        self.assertEqual([module for module in SOURCES if place(module)[0] < 0], [])
        self.assertEqual(set(PLACES) - set(SOURCES), set())

    def test_imports_go_down_the_floors_only(self) -> None:
        for module, imported in IMPORTS.items():
            for other in imported & set(SOURCES):
                with self.subTest(f"{module} imports {other}"):
                    self.assertLessEqual(place(other)[0], place(module)[0])

    def test_services_and_adapters_do_not_import_each_other(self) -> None:
        for module, imported in IMPORTS.items():
            for other in imported & set(SOURCES):
                if place(module)[0] == place(other)[0] == 2 and place(other)[1] not in SHARED:
                    with self.subTest(f"{module} imports {other}"):
                        self.assertEqual(place(module), place(other))

    def test_the_lowest_floor_imports_nothing_of_ours(self) -> None:
        for module, imported in IMPORTS.items():
            if place(module)[0] == 0:
                with self.subTest(module):
                    self.assertEqual(imported & set(SOURCES), set())

    def test_the_lower_floors_are_pure(self) -> None:
        for module, imported in IMPORTS.items():
            if place(module)[0] in (0, 1):
                with self.subTest(module):
                    self.assertEqual(imported & IMPURE, set())

    def test_services_leave_the_outside_to_adapters(self) -> None:
        for module, imported in IMPORTS.items():
            if place(module)[1] in SERVICES:
                with self.subTest(module):
                    self.assertEqual(imported & OUTSIDE, set())

    def test_nothing_but_the_standard_library_and_python_dotenv_in_one_place(self) -> None:
        for module, imported in IMPORTS.items():
            foreign = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"mailer"}
            with self.subTest(module):
                self.assertEqual(foreign, {"dotenv"} if module == "mailer.environment" else set())

    def test_the_scripts_are_thin(self) -> None:
        for script in ("client", "server", "collector"):
            with self.subTest(script):
                self.assertLess(len(SOURCES[script].read_text(encoding="utf-8").splitlines()), 60)


if __name__ == "__main__":
    unittest.main()
