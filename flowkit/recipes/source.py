"""Find code in a recipe's source that decides on values which only its run knows.

Most misuse of a `Ref` raises while the recipe is traced, since Python asks the object. Some constructs never ask:
`is`, `not`, `and`, `or`, `match`, f-strings with `!r`, `isinstance` and its kin. They would quietly decide something
at decoration that was meant to be decided in the run, so the function's syntax tree is searched for them.

A name is *of the run* when it is a parameter of the recipe or of a function inside it, or is assigned from an
expression that holds such a name or makes a step; so is an expression that holds one. A list, tuple or dict of such
values *holds* them: it may be looped over and asked for its truth, since the recipe made it. The search follows
names, not the order of statements, so a name that is both is taken as of the run.
"""

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator

from flowkit.errors import DefinitionError

_TYPE_QUESTIONS = {"isinstance", "issubclass", "type", "callable", "hasattr", "id", "repr", "ascii", "vars", "dir"}
_WHEN = "write when(condition, lambda: step(…), otherwise=…)"
_WRITE = "let a tool write it: step(tool, …), or ask(model, '… {name} …', name=…)"
_REPR_CONVERSIONS = (ord("r"), ord("a"))
_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def check_source(function: Callable[..., object], makers: Collection[object]) -> None:
    """Raise `DefinitionError`, with file and line, when `function` decides on a value that isn't known yet.

    `makers` are the functions that return values of the run. A function whose source can't be found (typed
    into an old interpreter's prompt, made by `exec`) isn't searched.
    """
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return
    names = _maker_names(function, definition, makers)
    for node, problem in _Search(definition, names).problems():
        where = f"{inspect.getsourcefile(function)}:{first + node.lineno - 1}"
        raise DefinitionError(f"{where}: recipe {function.__name__!r}: {problem}")


def _maker_names(function: Callable[..., object], tree: ast.AST, makers: Collection[object]) -> set[str]:
    """Collect the spellings in this function of what makes a step: `step`, `flowkit.step`, `fk.step.options`."""
    scope = dict(getattr(function, "__globals__", {}))
    with contextlib.suppress(TypeError, ValueError):
        scope |= inspect.getclosurevars(function).nonlocals
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            root, *path = ast.unparse(node).split(".")
            value: object = scope.get(root)
            for name in path:
                value = inspect.getattr_static(value, name, None)
            if any(value is maker for maker in makers):
                found.add(ast.unparse(node))
    return found


class _Search:
    """One function's search; `of_run` and `holders` are its names, as the module tells."""

    def __init__(self, definition: ast.FunctionDef, makers: set[str]) -> None:
        self.body = definition.body
        self.makers = makers
        self.holders: set[str] = set()
        self.of_run = {argument.arg for argument in _arguments(definition.args)}
        for node in self._walk():
            if isinstance(node, (ast.Lambda, ast.FunctionDef)):
                self.of_run |= {argument.arg for argument in _arguments(node.args)}
        known = -1
        while known != (known := len(self.of_run) + len(self.holders)):
            self._follow_assignments()

    def problems(self) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        """Yield each forbidden construct and what to write instead, from the top."""
        found: list[tuple[ast.expr | ast.stmt, str]] = []
        for node in self._walk():
            if isinstance(node, (ast.expr, ast.stmt)) and (problem := self._problem(node)):
                found.append((node, problem))
        yield from sorted(found, key=lambda pair: (pair[0].lineno, pair[0].col_offset))

    def _walk(self) -> Iterator[ast.AST]:
        for statement in self.body:
            yield from ast.walk(statement)

    def _follow_assignments(self) -> None:
        for node in self._walk():
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        self._assign(target, value)
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as value)
                    | ast.AugAssign(target=target, value=value)
                    | ast.NamedExpr(target=target, value=value)
                ):
                    self._assign(target, value)
                case ast.comprehension(target=target, iter=value) | ast.For(target=target, iter=value):
                    if self._touches_run(value):
                        self.of_run |= set(_names(target))
                case _:
                    pass

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if not self._touches_run(value):
            return
        is_holder = isinstance(target, ast.Name) and not self._is_of_run(value)
        (self.holders if is_holder else self.of_run).update(_names(target))

    def _touches_run(self, node: ast.AST) -> bool:
        """Return whether a value of the run occurs anywhere in `node`, also inside a list."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and (inner.id in self.of_run or inner.id in self.holders):
                return True
            if isinstance(inner, ast.Call) and _callee(inner.func) in self.makers:
                return True
        return False

    def _is_of_run(self, node: ast.AST) -> bool:
        """Return whether `node` itself is a value of the run, not only a list that holds one."""
        if isinstance(node, _DISPLAYS) or (isinstance(node, ast.Name) and node.id in self.holders - self.of_run):
            return False
        return self._touches_run(node)

    def _problem(self, node: ast.expr | ast.stmt) -> str | None:
        match node:
            case ast.Compare(left=left, ops=operators, comparators=others):
                return self._comparison_problem(node, [left, *others], operators)
            case ast.UnaryOp(op=ast.Not(), operand=operand) if self._is_of_run(operand):
                return f"'{_text(node)}' is decided before the recipe runs; write not_({_text(operand)})"
            case ast.BoolOp(op=operator, values=values) if any(map(self._is_of_run, values)):
                word, sign = ("and", "&") if isinstance(operator, ast.And) else ("or", "|")
                instead = f" {sign} ".join(f"({_text(value)})" for value in values)
                return f"{word!r} is decided before the recipe runs; write {instead}"
            case ast.Match(subject=subject) if self._is_of_run(subject):
                return f"'match {_text(subject)}' is decided before the recipe runs; {_WHEN}"
            case ast.FormattedValue(value=value, conversion=conversion) if self._touches_run(value):
                # without a conversion Python asks the value for its text, which raises by itself
                if conversion in _REPR_CONVERSIONS or not self._is_of_run(value):
                    return f"the text of '{_text(value)}' isn't known before the recipe runs; {_WRITE}"
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in _TYPE_QUESTIONS:
                if self._is_of_run(first):
                    return f"'{_text(node)}' is answered before the recipe runs, about the wrong object; {_WHEN}"
            case ast.Await() | ast.Yield() | ast.YieldFrom():
                return "a recipe is a plain function that makes steps; it doesn't await or yield"
            case _:
                pass
        return None

    def _comparison_problem(self, node: ast.expr, sides: list[ast.expr], operators: list[ast.cmpop]) -> str | None:
        if not any(map(self._is_of_run, sides)):
            return None
        left, right = _text(sides[0]), _text(sides[1])
        match operators[0]:
            case ast.Is() | ast.IsNot() as operator if right == "None":
                test = f"is_none({left})" if isinstance(operator, ast.Is) else f"not_(is_none({left}))"
                return f"'{_text(node)}' is decided before the recipe runs; write {test}"
            case ast.Is():
                return f"'{_text(node)}' is decided before the recipe runs; write {left} == {right}"
            case ast.IsNot():
                return f"'{_text(node)}' is decided before the recipe runs; write {left} != {right}"
            case ast.In() | ast.NotIn() as operator:
                test = f"is_in({left}, {right})"
                test = test if isinstance(operator, ast.In) else f"not_({test})"
                return f"'{_text(node)}' is decided before the recipe runs; write {test}"
            case _ if len(operators) > 1:
                return f"'{_text(node)}' hides an 'and'; write two comparisons joined by &, each in parentheses"
            case _:
                return None


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from filter(None, (arguments.vararg, arguments.kwarg))


def _names(target: ast.AST) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.id


def _callee(node: ast.expr) -> str:
    """Return the name of the called function; `step.options(retries=2)(…)` counts as `step`."""
    while isinstance(node, ast.Call):
        node = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    return ast.unparse(node)


def _text(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}…"
