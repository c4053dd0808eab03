"""Where the package makes errors, read from its source: of which kind, with what text, and with which values in it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Final, TypeAlias

import stillframe
from stillframe.domain import errors

PACKAGE: Final = Path(stillframe.__file__).parent
#: Where the classes themselves are, with no text of their own.
TREE: Final = "domain/errors.py"
#: What stands for a value in a text: nobody knows its letters.
VALUE: Final = "\N{OBJECT REPLACEMENT CHARACTER}"
#: A text, and the expressions that stand in it as values.
Told: TypeAlias = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Site:
    """A place where an error of the tree is made: its module and function, kind, and text, if it is written here."""

    module: str
    function: str
    line: int
    kind: str
    text: str | None
    values: tuple[str, ...]
    keyed: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.text}"

    @property
    def place(self) -> str:
        return f"{self.module}::{self.function}"


@cache
def trees() -> dict[str, ast.Module]:
    """The modules of the package, by their paths in it."""
    return {
        str(file.relative_to(PACKAGE)): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def kinds() -> dict[str, str]:
    """The kind in the error tree of each of its classes, and of those that are derived from them elsewhere."""
    found = {name: name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    classes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in range(3):
        for node in classes:
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in found:
                    found.setdefault(node.name, found[base.id])
    return found


@cache
def returned() -> dict[str, dict[str, list[ast.expr]]]:
    """What functions return, by their names: those of each module, and under no name the public ones of all."""
    found: dict[str, dict[str, list[ast.expr]]] = defaultdict(dict)
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                values = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
                found[module][node.name] = values
                if not node.name.startswith("_"):
                    found[""][node.name] = values
    return found


def assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """What the names of a function are set to, or those of a module outside of its functions."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in scope.body if isinstance(scope, ast.Module) else ast.walk(scope):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id].append(node.value)
    return found


@dataclass(frozen=True)
class Reader:
    """Reads the texts of expressions, following names and functions of their module to where they are written."""

    module: str
    names: dict[str, list[ast.expr]]
    depth: int = 4

    def texts(self, node: ast.expr) -> list[Told]:
        """All that an expression may read as, each with the values in it; nothing if it is not written here."""
        if isinstance(node, ast.Constant):
            return [(node.value, ())] if isinstance(node.value, str) else []
        if isinstance(node, ast.JoinedStr):
            parts = [self._part(one) for one in node.values]
            return [
                ("".join(text for text, _ in chosen), tuple(value for _, values in chosen for value in values))
                for chosen in product(*parts)
            ]
        inner = Reader(self.module, self.names, self.depth - 1) if self.depth else None
        return [told for one in self._behind(node) if inner is not None for told in inner.texts(one)]

    def _behind(self, node: ast.expr) -> Sequence[ast.expr]:
        if isinstance(node, ast.IfExp):
            return [node.body, node.orelse]
        if isinstance(node, ast.BoolOp):
            return node.values
        if isinstance(node, ast.Name):
            return self.names.get(node.id, ())
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            own = returned()[self.module].get(node.func.id)
            return own if own is not None else returned()[""].get(node.func.id, ())
        return ()

    def _part(self, part: ast.expr) -> list[Told]:
        if not isinstance(part, ast.FormattedValue):
            return self.texts(part)
        value = f"'{VALUE}'" if part.conversion == ord("r") else VALUE
        return self.texts(part.value) or [(value, (ast.unparse(part.value),))]


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.AST, ast.Call, str]]:
    """Where errors are made, with the function around: by a class, its base, or a name that stands for one."""
    inside: dict[int, tuple[str, ast.AST]] = {}
    owned: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            inside |= {id(one): (node.name, node) for one in ast.walk(node)}
        elif isinstance(node, ast.ClassDef) and node.name in kinds():
            owned |= {id(one): kinds()[node.name] for one in ast.walk(node)}
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, scope = inside.get(id(node), ("", tree))
            called = ast.unparse(node.func)
            if called in kinds():
                yield name, scope, node, kinds()[called]
            elif called == "super().__init__" and id(node) in owned:
                yield name, scope, node, owned[id(node)]
            elif id(node) in raised and called in assigned(scope):
                yield name, scope, node, called


@cache
def sites() -> tuple[Site, ...]:
    """All places where errors of the tree are made, once for each text that one may have."""
    found = []
    for module, tree in trees().items():
        for name, scope, node, kind in calls(tree) if module != TREE else ():
            keyed = len(node.args) > 1 or bool(node.keywords)
            told = Reader(module, assigned(tree) | assigned(scope)).texts(node.args[0]) if node.args else []
            found += [Site(module, name, node.lineno, kind, text, values, keyed) for text, values in told]
            if not told:
                found.append(Site(module, name, node.lineno, kind, None, (), keyed))
    return tuple(found)
