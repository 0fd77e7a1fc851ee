"""The house rules of CONTRIBUTING.md that can be counted: sizes, fragments, docstrings, and what functions take."""

import ast
import re
from collections import Counter
from pathlib import Path

import galbatch
from galbatch import config
from galbatch.config.strict import Section

PACKAGE = Path(galbatch.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
SECTIONS = {
    name
    for name in dir(config)
    if isinstance(kind := getattr(config, name), type) and issubclass(kind, Section)
}


def functions():
    """Yield (path, name of the class or "", function) of the whole package."""
    for path, tree in TREES.items():
        of_class = {
            id(child): node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for child in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, of_class.get(id(node), ""), node


FUNCTIONS = list(functions())


def place(path, node):
    return f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"


def test_modules_and_folders_are_small():
    assert [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 500] == []
    in_folder = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {folder: n for folder, n in in_folder.items() if n > 12} == {}
    assert [path for path in FILES if path.stem in ("util", "utils")] == []


def body_lines(node):
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_are_short():
    assert [place(path, node) for path, _, node in FUNCTIONS if body_lines(node) > 40] == []


def test_few_private_functions_have_a_single_use():
    """Their name occurs twice in their file: where it is defined and where it is called."""
    texts = {path: path.read_text(encoding="utf-8") for path in FILES}
    single = [
        place(path, node)
        for path, _, node in FUNCTIONS
        if re.match(r"_(?!_)", node.name) and len(re.findall(rf"\b{node.name}\b", texts[path])) == 2
    ]
    assert 0 < len(single) < 0.18 * len(FUNCTIONS)


def test_docstrings_begin_with_a_verb_or_name_the_thing():
    nodes = [*((path, node) for path, _, node in FUNCTIONS)]
    nodes += [
        (path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    begins = re.compile(r"(What|Of|See|As|From|By|How)\b|[(\[]")
    assert [place(path, node) for path, node in nodes if begins.match(ast.get_docstring(node) or "")] == []
    # Of files and of constants, whose text stands below them, and is no docstring of Python's.
    begins = re.compile(r"(What|Of|See)\b")
    texts = [
        (path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    assert len(texts) > 200
    found = [f"{path.name}:{node.lineno}" for path, node in texts if begins.match(str(node.value.value))]
    assert found == []


def reads_of(node, name):
    """The attributes that a function reads of a parameter, and whether it also passes the whole on."""
    parents = {child: parent for parent in ast.walk(node) for child in ast.iter_child_nodes(parent)}
    attributes, whole = set(), False
    for found in ast.walk(node):
        if isinstance(found, ast.Name) and found.id == name:
            parent = parents[found]
            # pydantic's own methods (model_dump) take the whole.
            if isinstance(parent, ast.Attribute) and not parent.attr.startswith("model_"):
                attributes.add(parent.attr)
            else:
                whole = True
    return attributes, whole


def test_functions_take_a_value_instead_of_a_section_of_which_they_read_it():
    # Methods that several classes of a folder have are those of an interface, which another class may read more of.
    named = Counter((path.parent, node.name) for path, of_class, node in FUNCTIONS if of_class)
    wasteful = []
    for path, of_class, node in FUNCTIONS:
        if of_class and named[path.parent, node.name] > 1:
            continue
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = ast.unparse(argument.annotation).partition(" | ")[0] if argument.annotation else ""
            attributes, whole = reads_of(node, argument.arg)
            if kind in SECTIONS and not whole and len(attributes) == 1:
                wasteful.append(f"{place(path, node)}: {argument.arg}.{attributes.pop()}")
    assert len(SECTIONS) > 8
    assert wasteful == []


CLOCK_OF_ALL = re.compile(
    r"""setattr\(\s*(?:[\w.]*\btime,\s*["'](?:monotonic|time|sleep)|f?["'][^"']*time\.(?:monotonic|time|sleep)["'])"""
)


def test_no_test_moves_the_clock_of_the_whole_process():
    """`tests.clocks.replace_clock` says why."""
    assert CLOCK_OF_ALL.search('monkeypatch.setattr("galbatch.cluster.monitor.time.monotonic", clock)')
    assert CLOCK_OF_ALL.search('monkeypatch.setattr(\n    samples.time, "monotonic", clock)')
    tests = Path(__file__).parents[1]
    moved = [
        path.name for path in tests.rglob("*.py") if CLOCK_OF_ALL.search(path.read_text(encoding="utf-8"))
    ]
    assert moved == [Path(__file__).name]
