"""The shape of the package, checked by machine: rooms of casstore/README.md, rules of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "casstore"
MODULES = sorted(PACKAGE.rglob("*.py"))
NATIVE = sorted(each for each in (ROOT / "_native").iterdir() if each.suffix in {".c", ".h", ".pyx", ".pxd"})

#: Who may touch files by path, and which: everything else asks these.
DOORS = {
    "store/objects.py": "the only door to what lies under STORE",
    "store/disk.py": "its hinges: how bytes, files and folders become durable",
    "store/journal.py": "a text file that grows: the mirror's state, under STORE or where the user says",
    "store/transfers.py": "what has come of transfers that were cut short",
    "store/cache.py": "blobs made again, in a folder that anyone may empty",
    "store/catalog.py": "SQLite opens its own file; only whether it is there is asked",
    "flow/source.py": "files that the user named, to read",
    "rootfs/folder.py": "the folder that the user named to be filled",
    "transport/": "archives and folders that the user named",
    "image/output.py": "the archive that the user named: a temporary file, then a rename",
    "flow/content.py": "a file without a name that the store made for it",
    "api.py": "the file that the user named for `blob put`",
    "cli/": "demo makes its own files in a temporary folder; save looks at its target",
}
_OS_FILE_CALLS = re.compile(
    "open|unlink|remove|rename|replace|renames|mkdir|makedirs|rmdir|link|symlink|stat|lstat|scandir|listdir|walk"
    "|chmod|chown|utime|truncate|readlink|mkfifo|mknod|access|statvfs"
)
_PATH_FILE_CALLS = re.compile(
    "mkdir|unlink|touch|write_bytes|write_text|read_bytes|read_text|iterdir|rglob|glob|symlink_to|hardlink_to"
    "|rmdir|exists|is_file|is_dir|lstat"
)
_MODE = re.compile(r"[rwxa]b?\+?")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def allowed(path: Path, places: dict[str, str] | set[str]) -> bool:
    name = name_of(path)
    return any(name == place or (place.endswith("/") and name.startswith(place)) for place in places)


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text("utf-8"), str(path)))


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """(owner, name, call): ("os", "open", …), ("", "print", …), ("?", "mkdir", …) for another method."""
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            yield "", node.func.id, node
        elif isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield owner.id if isinstance(owner, ast.Name) else "?", node.func.attr, node


def test_imports_point_down_only() -> None:
    pytest.importorskip("importlinter", reason="pip install -e '.[lint]'")
    linter = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_reads_the_environment_and_prints(path: Path) -> None:
    if allowed(path, {"cli/"}):
        return
    for owner, name, call in calls(path):
        assert (owner, name) not in {("", "print"), ("", "input"), ("os", "getenv")}, f"line {call.lineno}"
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            where = (node.value.id, node.attr)
            forbidden = {
                ("os", "environ"),
                ("os", "environb"),
                ("sys", "stdout"),
                ("sys", "stderr"),
                ("sys", "argv"),
            }
            assert where not in forbidden, f"line {node.lineno}: {'.'.join(where)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_touched_only_at_the_doors(path: Path) -> None:
    if allowed(path, DOORS):
        return
    for owner, name, call in calls(path):
        first = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        touches = (
            (owner == "" and name == "open")
            or (owner == "os" and _OS_FILE_CALLS.fullmatch(name))
            or owner in {"shutil", "tempfile"}
            or (owner not in {"", "os"} and _PATH_FILE_CALLS.fullmatch(name))
            or (name == "open" and isinstance(first, str) and _MODE.fullmatch(first) is not None)
        )
        assert not touches, f"line {call.lineno}: {owner}.{name}() outside {', '.join(DOORS)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_hides_in_a_function(path: Path) -> None:
    if allowed(path, {"cli/", "api.py", "handles.py", "distribution.py"}):
        return
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if path.name == "__init__.py" and node.name == "__getattr__":
                continue  # PEP 562: public names that load when they are asked for
            hidden = [each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
            assert not hidden, f"line {hidden[0].lineno} in {node.name}()"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_failures_are_values_of_the_error_tree(path: Path) -> None:
    for node in nodes(path):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert vanishes under -O"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
        if isinstance(node, ast.ImportFrom):
            assert all(each.name != "*" for each in node.names), f"line {node.lineno}: star import"


@pytest.mark.parametrize("path", MODULES + NATIVE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_fit_the_head(path: Path) -> None:
    count = len(path.read_text("utf-8").splitlines())
    assert count < 500, f"{count} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree), "no docstring"
    assert path.stem not in {"utils", "util", "helpers", "constants", "common", "misc"}


def test_rooms_are_the_rooms() -> None:
    """A new room is a decision: it goes into the map and the import contract too."""
    rooms = {each.name for each in PACKAGE.iterdir() if each.is_dir() and each.name != "__pycache__"}
    known = {
        "cli",
        "codec",
        "flow",
        "format",
        "fs",
        "image",
        "kernels",
        "oci",
        "rootfs",
        "store",
        "transport",
        "upkeep",
    }
    assert rooms - {"serve"} == known
    text = (PACKAGE / "README.md").read_text("utf-8")
    missing = [room for room in rooms if f"[{room}]({room}/)" not in text]
    assert not missing


def test_one_file_for_each_verb() -> None:
    from casstore.cli.root import image, root

    for group in (root, image):
        for verb, place in group._lazy.items():
            module = place.split(":")[0]
            assert (PACKAGE / "cli" / f"{module}.py").is_file(), verb
