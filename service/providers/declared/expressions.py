"""Expressions: JMESPath, compiled and checked when a declaration is loaded, evaluated within bounds.

Two functions are added: `parse_json(text)`, null when the text does not parse, and `lower(text)`.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from jmespath.exceptions import JMESPathError, ParseError
from jmespath.functions import Functions, signature
from jmespath.parser import Parser
from jmespath.visitor import Options, TreeInterpreter

from service.providers.declared.document import Document, read_json

LENGTH_MAX = 2_000
_BYTES_PER_STEP = 64
"""Functions read whole texts and lists, so those cost steps by their size."""
_FAILURES = (JMESPathError, ValueError, TypeError, ArithmeticError, RecursionError)

Node = dict[str, Any]


class WrongExpressionError(ValueError):
    """The text is no valid expression. The message says why, and where."""


class Expression:
    """An expression over a document whose names are `names`."""

    def __init__(self, source: str, names: frozenset[str]) -> None:
        self.source = source
        self._tree = _parse(source)
        for problem in _problems(self._tree, names):
            raise WrongExpressionError(problem)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def find(self, document: Document) -> Any:
        """The value, or None where there is none, where a type does not fit or the steps are used up."""
        try:
            return _Interpreter(document).visit(self._tree, document.values)
        except _FAILURES:
            return None

    def holds(self, document: Document) -> bool:
        """Whether the value is true for JMESPath: all but null, false, and empty texts, lists and objects."""
        value = self.find(document)
        return value is not None and value is not False and value not in ("", [], {})

    def reads(self, *path: str) -> set[str]:
        """The members of `path` that the expression names, such as `seed` of `input`."""
        return {
            found[len(path)] for found in _paths(self._tree) if found[: len(path)] == path and len(found) > len(path)
        }


class _Interpreter(TreeInterpreter):  # type: ignore[misc]  # jmespath has no annotations
    def __init__(self, document: Document) -> None:
        super().__init__(_OPTIONS)
        self._document = document

    def visit(self, node: Node, *args: Any, **kwargs: Any) -> Any:
        self._document.spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Node, value: Any) -> Any:
        found = super().visit_flatten(node, value)
        self._document.spend(_weight(found))
        return found

    def visit_function_expression(self, node: Node, value: Any) -> Any:
        arguments = [self.visit(child, value) for child in node["children"]]
        self._document.spend(sum(map(_weight, arguments)))
        found = self._functions.call_function(node["value"], arguments)
        self._document.spend(_weight(found))
        return found


class _Functions(Functions):  # type: ignore[misc]
    @signature({"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_lower(self, text: str) -> str:
        return text.lower()

    @signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_parse_json(self, text: Any) -> Any:
        return read_json(text) if isinstance(text, str) else None


_OPTIONS = Options(custom_functions=_Functions())


def _weight(value: Any) -> int:
    return len(value) // _BYTES_PER_STEP if isinstance(value, str | list | dict) else 0


# --- checks when a declaration is loaded ------------------------------------------------------------------------------


def _parse(source: str) -> Node:
    if len(source) > LENGTH_MAX:
        raise WrongExpressionError(f"has {len(source)} characters; {LENGTH_MAX} are allowed")
    try:
        return dict(Parser().parse(source).parsed)
    except ParseError as error:
        where = min(error.lex_position, len(source))
        raise WrongExpressionError(f"is no JMESPath expression: stops to make sense at character {where + 1}") from None
    except _FAILURES as error:
        raise WrongExpressionError(f"is no JMESPath expression: {error}") from None


def _problems(tree: Node, names: frozenset[str]) -> Iterator[str]:
    for node in _walk(tree):
        if node["type"] == "function_expression":
            yield from _function_problems(node)
    for name in sorted({path[0] for path in _paths(tree)} - names):
        known = ", ".join(sorted(names))
        hint = f"; did you mean body.{name}?" if "body" in names else ""
        yield f"reads {name}, but an expression here starts with {known}{hint}"


def _function_problems(node: Node) -> Iterator[str]:
    name, given = node["value"], len(node["children"])
    spec = _Functions.FUNCTION_TABLE.get(name)
    if spec is None:
        close = get_close_matches(name, _Functions.FUNCTION_TABLE, n=1)
        yield f"calls {name}(), which does not exist{f'; did you mean {close[0]}()?' if close else ''}"
        return
    wanted = spec["signature"]
    is_variadic = bool(wanted) and bool(wanted[-1].get("variadic"))
    if given < len(wanted) if is_variadic else given != len(wanted):
        least = "at least " if is_variadic else ""
        yield f"calls {name}() with {given} arguments; it takes {least}{len(wanted)}"


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("children", ()):
        if isinstance(child, dict):  # a slice has numbers
            yield from _walk(child)


def _paths(node: Node) -> Iterator[tuple[str, ...]]:
    """The paths of names that start at the document itself."""
    kind, children = node["type"], node.get("children", [])
    if kind == "field":
        yield (node["value"],)
    elif kind in ("subexpression", "index_expression", "pipe", "projection", "value_projection", "filter_projection"):
        yield from _chain(children)
    elif kind != "expref":  # its names start at an element
        for child in children:
            if isinstance(child, dict):
                yield from _paths(child)


def _chain(children: list[Node]) -> Iterator[tuple[str, ...]]:
    """Only the first link of a chain starts at the document; the names of the second are members of it."""
    members = list(_paths(children[1])) or [()]
    for path in _paths(children[0]):
        yield from ((*path, *member) for member in members)
