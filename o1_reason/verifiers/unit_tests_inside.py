"""Unit tests and the program that they test, in two processes: this file is the text that both begin with.

The tests run in one, the candidate in the other. The tests see the candidate's functions as `Remote` objects; a call
goes over, and its result comes back as plain data, or as a `Remote` if it is no plain data. So every comparison that
decides a test is made where the candidate cannot reach. All that comes from over there is data of its choosing, and
nothing it can say makes the tests' process do more than hand it a value or call a function that the tests gave it.

One JSON object a line: {"ask": operation, "args", "kwargs", "back"} is answered by {"result", "args"} or
{"raised": [names of the error's classes, message]}; in between the other side may ask, too. The tests' process also
says how it gets on, to whoever passes the lines: {"tell": [what, which test, why]}.
"""

import ast
import builtins
import json
import operator
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

UNARY = ("len", "iter", "bool", "str", "repr", "hash")
SPECIAL = (
    "getitem", "setitem", "delitem", "contains", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or",
    "xor", "neg",
)  # fmt: skip
COMPARING = ("eq", "ne", "lt", "le", "gt", "ge")
CHANGING = (list, dict, set)
ERRORS = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}


class ExhaustedError(Exception):
    """The candidate raised StopIteration."""


class Remote:
    """An object of the other process."""

    def __init__(self, link: "Link", number: int) -> None:
        vars(self).update(_link=link, _number=number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.ask("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask("setattr", self, name, value)

    def __next__(self) -> Any:
        try:
            return self._link.ask("next", self)
        except ExhaustedError:
            raise StopIteration from None

    def __instancecheck__(self, value: Any) -> Any:
        return self._link.ask("isinstance", value, self)


def _special(name: str, among_its_own: bool) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        if among_its_own and not isinstance(args[0], Remote):
            return NotImplemented  # whether it equals plain data is not for the candidate to say
        return self._link.ask(name, self, *args)

    return method


for _name in (*UNARY, *SPECIAL, *COMPARING):
    setattr(Remote, f"__{_name}__", _special(_name, _name in COMPARING))


class Link:
    """One end of the line. `operations` are what the other end may ask for."""

    def __init__(
        self, operations: Mapping[str, Callable[..., Any]], back: bool = False, silent: Sequence[int] = (0, 1)
    ) -> None:
        self.operations = operations
        self.back = back  # whether lists, dicts and sets that were handed over come back changed
        self.errors: dict[str, type[Exception]] = dict(ERRORS)
        self._reads: TextIO = os.fdopen(os.dup(0))
        self._writes: TextIO = os.fdopen(os.dup(1), "w")
        for descriptor in silent:  # what is printed is no message, and nobody reads it
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        self._mine: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Remote] = {}

    def send(self, message: Mapping[str, Any]) -> None:
        self._writes.write(json.dumps(message) + "\n")
        self._writes.flush()

    def ask(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        named = {name: self.encode(value) for name, value in kwargs.items()}
        back = self.back and operation == "call"
        self.send({"ask": operation, "args": [self.encode(arg) for arg in args], "kwargs": named, "back": back})
        reply = self.serve()
        for mine, theirs in zip(args, reply["args"] if back else (), strict=False):
            changed = self.decode(theirs)
            if isinstance(mine, CHANGING) and type(changed) is type(mine):
                mine.clear()
                mine.extend(changed) if isinstance(mine, list) else mine.update(changed)
        return self.decode(reply["result"])

    def serve(self) -> dict[str, Any]:
        """Answer what the other end asks, until it answers. Raises what it raised."""
        while line := self._reads.readline():
            message = json.loads(line)
            if "raised" in message:
                classes, text = message["raised"]
                raise self.error(classes)(str(text))
            if "ask" not in message:
                return message
            self.send(self._answer(message))
        os._exit(0)

    def error(self, classes: list[str]) -> type[Exception]:
        """The nearest class that is known here."""
        if "StopIteration" in classes:  # it would end a loop here as if all were well
            return ExhaustedError
        return next((self.errors[name] for name in classes if name in self.errors), Exception)

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            args = [self.decode(arg) for arg in message["args"]]
            kwargs = {name: self.decode(value) for name, value in message["kwargs"].items()}
            result = self.encode(self.operations[message["ask"]](*args, **kwargs))
            back = [self.encode(arg if isinstance(arg, CHANGING) else None) for arg in args] if message["back"] else []
            return {"result": result, "args": back}
        except BaseException as error:
            text = ""
            with suppress(BaseException):
                text = str(error)[:1000]
            return {"raised": [[kind.__name__ for kind in type(error).__mro__], text]}

    def encode(self, value: Any) -> Any:
        """Plain data as JSON, subclasses as what they are derived from; all else by reference."""
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return value if -(1 << 63) < value < 1 << 63 else {"int": hex(value)}
        if isinstance(value, bytes | bytearray):
            return {type(value).__name__: value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return {kind.__name__: [self.encode(item) for item in value]}
        if isinstance(value, Remote):
            return {"yours": value._number}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._mine)
            self._mine.append(value)
        return {"mine": self._numbers[id(value)]}

    def decode(self, data: Any) -> Any:
        """The inverse; raises something for what `encode` does not produce."""
        if not isinstance(data, dict):
            return data
        ((kind, value),) = data.items()
        match kind:
            case "int":
                return int(value, 16)
            case "bytes" | "bytearray":
                return getattr(builtins, kind).fromhex(value)
            case "complex":
                return complex(*value)
            case "dict":
                return {self.decode(key): self.decode(item) for key, item in value}
            case "list" | "tuple" | "set" | "frozenset":
                return getattr(builtins, kind)(self.decode(item) for item in value)
            case "yours":
                return self._mine[value]
            case "mine":
                if value not in self._theirs:
                    self._theirs[value] = Remote(self, value)
                return self._theirs[value]
        raise ValueError(f"no such kind of data: {kind}")


def serve(code: str) -> None:
    """The candidate's process: load `code` as a module, then do with its objects what is asked."""

    def load() -> Any:
        module = sys.modules["solution"] = types.ModuleType("solution")
        exec(compile(code, "solution.py", "exec", dont_inherit=True), vars(module))
        known: dict[str, Any] = {}
        for name, value in vars(module).items():
            if not (name.startswith("__") or isinstance(value, types.ModuleType)):
                error = isinstance(value, type) and issubclass(value, Exception)
                known[name] = [kind.__name__ for kind in value.__mro__] if error else (value,)
        return known

    operations = {name: getattr(builtins, name) for name in (*UNARY, "next", "getattr", "setattr", "isinstance")}
    operations |= {name: getattr(operator, f"__{name}__") for name in (*SPECIAL, *COMPARING)}
    operations |= {"call": lambda function, *args, **kwargs: function(*args, **kwargs), "load": load}
    Link(operations, silent=(0, 1, 2)).serve()


def tests_in(source: str) -> tuple[list[ast.stmt], list[tuple[str, ast.stmt]]]:
    """The statements of a source, and those that are tests, named: asserts and functions ``test*``, or else calls.

    Raises SyntaxError, and ValueError for tests that would not be run as they are meant.
    """
    body = ast.parse(source).body
    found: list[tuple[str, ast.stmt]] = [
        (f"assert on line {node.lineno}", node) for node in body if isinstance(node, ast.Assert)
    ]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            required = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
            if isinstance(node, ast.AsyncFunctionDef) or required or None in node.args.kw_defaults or _yields(node):
                raise ValueError(f"{node.name} must be a plain function without parameters")
            found.append((node.name, node))
    calls = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return body, found or [(f"call on line {node.lineno}", node) for node in calls]


def _yields(node: ast.AST) -> bool:
    inner = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.GeneratorExp | ast.ClassDef
    return any(
        isinstance(child, ast.Yield | ast.YieldFrom) or (not isinstance(child, inner) and _yields(child))
        for child in ast.iter_child_nodes(node)
    )


def judge(source: str, wanted: list[int], back: bool) -> None:
    """The tests' process: run those tests of `source` whose numbers are `wanted`, and tell how each went.

    Tells "began", "passed" and "failed" with the test's number; "failed" without one if what stands around the tests
    fails, "broken" if that is no candidate's fault.
    """
    link = Link({"call": lambda function, *args, **kwargs: function(*args, **kwargs)}, back)
    space: dict[str, Any] = {"__name__": "tests"}

    def execute(node: ast.stmt) -> None:
        exec(compile(ast.Module([node], []), "tests.py", "exec", dont_inherit=True), space)

    def attempt(number: int, function: Callable[..., Any], *args: Any) -> None:
        link.send({"tell": ["began", number, ""]})
        try:
            function(*args)
        except BaseException as error:
            link.send({"tell": ["failed", number, _kind(error)]})
        else:
            link.send({"tell": ["passed", number, ""]})

    body, tests = tests_in(source)
    node: ast.stmt = ast.Pass()
    try:
        _meet(link, space)
        numbers = {id(node): number for number, (_, node) in enumerate(tests)}
        for node in body:
            if id(node) not in numbers or isinstance(node, ast.FunctionDef):
                execute(node)
            elif numbers[id(node)] in wanted:
                attempt(numbers[id(node)], execute, node)
        for number, (name, node) in enumerate(tests):
            if number in wanted and isinstance(node, ast.FunctionDef):
                attempt(number, space[name])
    except BaseException as error:
        broken = isinstance(error, ImportError) and isinstance(node, ast.Import | ast.ImportFrom)
        link.send({"tell": ["broken", None, str(error)] if broken else ["failed", None, _kind(error)]})


def _meet(link: Link, space: dict[str, Any]) -> None:
    """Put the candidate's names into `space`; its exceptions as classes of their own, so that they can be caught."""
    for name, value in link.ask("load").items():
        if hasattr(builtins, name) or name.startswith("__"):
            continue  # the tests' `all` is Python's
        if isinstance(value, list):
            link.errors[name] = space[name] = type(name, (link.error(value[1:]),), {})
        else:
            (space[name],) = value


def _kind(error: BaseException) -> str:
    """The error's class, or the nearest one of Python's own: no text that the candidate could write."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
