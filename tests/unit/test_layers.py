"""cli → operations → {repository | filesystem} → {codec | chunking | storage} → {model | errors}.

Each layer imports only from layers to its right, and layers in braces never import each other.
The two modules at the root are public doors: `__init__` stands left of operations, `__main__`
left of cli. `testing`, the fault tools for tests, stands left of everything: nothing imports it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "packstone"

# layer → rank; a module may import its own layer and any of a lower rank
RANK = {
    "testing": 7,
    "__main__": 6,
    "cli": 5,
    "": 4,  # packstone itself: the public API
    "operations": 3,
    "repository": 2,
    "filesystem": 2,
    "codec": 1,
    "chunking": 1,
    "storage": 1,
    "model": 0,
    "errors": 0,
    "quantities": 0,
    "version": 0,
}


def layer_of(module: str) -> str:
    """Return the layer of a dotted name below packstone; names of the API belong to it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANK else ""


def module_of(path: Path) -> str:
    parts = ["packstone", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything of ours that a file imports, also in functions."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "packstone")


def allowed(importer: str, imported: str) -> bool:
    if importer == imported:
        # nothing but the data of model, errors, quantities and version stands at rank 0
        return True
    if RANK[importer] == 0:
        return False
    return RANK[imported] < RANK[importer]


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_imports_only_to_the_right(path: Path) -> None:
    importer = layer_of(module_of(path))
    wrong = [
        f"line {number}: {importer or 'the API'} imports {name}"
        for number, name in imports(path)
        if not allowed(importer, layer_of(name))
    ]
    assert not wrong


def test_every_file_is_in_a_layer() -> None:
    names = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert names - {"__init__"} <= RANK.keys()


def layers_seen_by(layer: str) -> set[str]:
    paths = (SOURCE / layer).rglob("*.py")
    return {layer_of(name) for path in paths for _, name in imports(path)}


def test_operations_alone_see_files_and_repository() -> None:
    both = {"filesystem", "repository"}
    assert both <= layers_seen_by("operations")
    # the command line is built on the API and reaches around it nowhere
    assert layers_seen_by("cli") <= {"", "cli", "errors", "model", "quantities", "version"}


def test_fault_tools_need_storages_alone() -> None:
    """Whoever writes a storage can use them without the rest."""
    assert layers_seen_by("testing") <= {"testing", "storage", "model", "errors"}


def test_the_rule_would_notice() -> None:
    assert not allowed("repository", "filesystem")
    assert not allowed("filesystem", "repository")
    assert not allowed("codec", "storage")
    assert not allowed("storage", "repository")
    assert not allowed("model", "errors")
    assert not allowed("operations", "cli")
    assert not allowed("operations", "")
    assert not any(allowed(layer, "testing") for layer in RANK.keys() - {"testing"})
    assert allowed("operations", "filesystem")
    assert allowed("filesystem", "chunking")


def test_extensions_stand_beside_their_layer() -> None:
    assert {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("_*.c")} == {
        "chunking/_kernel.c",
        "codec/_delta.c",
        "filesystem/_scan.c",
    }
