"""What people read in a terminal or an editor is plain English, in sentences that stand alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "svfseg").rglob("*.py"))

# Words that end with "s" and before which "a" is an article.
_BEFORE_ARTICLE = "as|has|is|was|names|means|needs|takes|uses|gives|holds|reads|across|does"
REFUSED = {
    '"is no" for "is not a"': r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b)",
    "begins with a neighbour's words": r"\A[Oo]f ",
    '"so many"': r"\bso many\b",
    '"a" for "per"': rf"\b(?:(?!(?:{_BEFORE_ARTICLE})\b)\w+s|one [\w ]+?|figure|image,mask) an? "
    r"(?:line|step|second|layer|seed|group|pixel|worker|strategy)\b(?! at a time)",
    "whoever": r"\bwhoever\b",
    "nobody else": r"\bnobody else\b",
    "an ellipsis at the end": r"(?:\.\.\.|…)\W*\Z",
    "a word that only this project uses": r"\b(?:(?<!progress )bars?|floor|room|walker)\b",
}
ARM = r"\barms?\b"
ARM_IS_DEFINED = ("lab/study", "lab/settings.py", "lab/events.py", "lab/bench", "cli/lab.py")
# The verbs that first lines of functions begin with: a new one is added here.
VERBS = (
    "Add Answer Append Apply Assign Augment Average Await Begin Blend Build Change Check Choose Close "
    "Collect Colour Compare Complete Compute Copy Count Crop Cut Decode Describe Do Draw Drop "
    "Encode End Factor Fill Find Fit Forget Freeze Gather Generate Give Go Hash Identify Index "
    "Join Lay Learn Leave Let List Load Look Make Map Mean Measure Merge Move Name Nest Normalise "
    "Number Open Outline Pack Pad Paint Pool Predict Prepare Put Raise Read Rebuild Rectify "
    "Remove Rename Report Reshape Resize Run Save Say Scale Score See Seed Select Separate Set "
    "Show Split Stack Start Stop Store Sum Summarise Tabulate Take Time Trace Trade Train Tune "
    "Turn Undo Warn Weigh Write"
)


def text_of(node: ast.AST) -> str:
    """The words of a string's parts, values in it as x."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            text_of(part) if isinstance(part, ast.Constant) else "X" for part in node.values
        )
    return ""


def strings(node: ast.AST) -> Iterator[str]:
    """Every string in an expression, an f-string as one."""
    if isinstance(node, (ast.Constant, ast.JoinedStr)):
        yield text_of(node)
        return
    for child in ast.iter_child_nodes(node):
        yield from strings(child)


def fields_of(tree: ast.Module) -> Iterator[tuple[str, str, ast.expr | None, str]]:
    """Class, field, default and text of every dataclass field in a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                text = str(after.value.value) if is_text else ""  # type: ignore[union-attr]
                yield node.name, field.target.id, field.value, " ".join(text.split())


def help_texts() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        if path.parent.name == "cli" or path.name == "config.py":
            for owner, name, default, text in fields_of(ast.parse(path.read_text())):
                if default is not None and ast.unparse(default).startswith("field("):
                    continue  # settings in settings, which their own class explains
                yield f"{path.relative_to(ROOT)} {owner}.{name}", text


def messages() -> Iterator[tuple[str, str]]:
    """What errors and warnings say."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            calls: list[ast.expr] = []
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                calls = node.exc.args[:1]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                calls = node.args[:1] if node.func.attr in ("warning", "warn") else []
            for call in calls:
                for text in strings(call):
                    if " " in text:
                        where = f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
                        yield where, " ".join(text.split())


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: Documented) -> Iterator[Documented]:
    """A module or class, and what it defines under public names."""
    yield node
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if child.name.startswith("_"):
                continue
            if isinstance(child, ast.ClassDef):
                yield from public(child)
            else:
                yield child


def first_lines() -> Iterator[tuple[str, Documented, str]]:
    for path in SOURCES:
        for node in public(ast.parse(path.read_text())):
            name = getattr(node, "name", "")
            where = f"{path.relative_to(ROOT / 'src' / 'svfseg')} {name}".strip()
            text = ast.get_docstring(node) or ""
            yield where, node, text.partition("\n\n")[0].replace("\n", " ")


def faults(where: str, text: str) -> Iterator[str]:
    for what, pattern in REFUSED.items():
        if re.search(pattern, text, re.IGNORECASE):
            yield f"{where}: {what}: {text}"
    is_defined = any(part in where for part in ARM_IS_DEFINED)
    if not is_defined and re.search(ARM, text):
        yield f"{where}: arm, outside of studies: {text}"


def is_left_to_others(node: Documented) -> bool:
    """The cases of an overloaded function, and what a protocol names of torch: without text."""
    names = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
    is_stub = isinstance(node, ast.FunctionDef) and ast.unparse(node.body[0]) == "..."
    return "overload" in names or is_stub


def is_property(node: Documented) -> bool:
    names = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
    return any(n.endswith(("property", ".setter")) for n in names)


def test_help_messages_and_first_lines_are_plain() -> None:
    texts = [*help_texts(), *messages(), *((where, text) for where, _, text in first_lines())]
    assert len(texts) > 1000
    found = [fault for where, text in texts for fault in faults(where, text)]
    assert not found, "\n".join(found)


def test_every_option_is_explained_in_a_sentence() -> None:
    found = [f"{w}: {t!r}" for w, t in help_texts() if not re.match(r"[A-Z].*\.\Z", t)]
    assert not found, f"{len(found)} texts are not sentences:\n" + "\n".join(found)


def test_options_without_a_value_name_their_default() -> None:
    found = []
    for path in SOURCES:
        if path.parent.name != "cli" and path.name != "config.py":
            continue
        for owner, name, default, text in fields_of(ast.parse(path.read_text())):
            empty = default is not None and ast.unparse(default) in ("None", "''", "()")
            if empty and "default" not in text.lower():
                found.append(f"{owner}.{name}: {text}")
    assert not found, f"{len(found)} texts name no default:\n" + "\n".join(found)


def test_what_is_said_of_a_parameter_begins_with_a_noun() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in re.findall(r"^ +\w+: of .*$", path.read_text(), re.MULTILINE)
    ]
    assert not found, "\n".join(found)


def test_first_lines_are_sentences_and_say_what_a_function_does() -> None:
    found = []
    for where, node, line in first_lines():
        if is_left_to_others(node) or (where.startswith("web/routes/") and " " in where):
            continue  # a route's name is its summary, and its docstring goes on from it
        if not line.endswith("."):
            found.append(f"{where}: no full stop: {line!r}")
        word = line.partition(" ")[0].strip(",.:;`")
        if isinstance(node, ast.Module) and word in ("What", "Where", "How", "Which", "Whether"):
            found.append(f"{where}: a riddle: {line!r}")
        if isinstance(node, (ast.Module, ast.ClassDef)) or is_property(node):
            continue
        gives_bool = node.returns is not None and "bool" in ast.unparse(node.returns)
        if word == "Whether" and gives_bool:
            continue
        if f" {word} " not in f" {VERBS} ":
            found.append(f"{where}: not in the imperative: {line!r}")
    assert not found, f"{len(found)} first lines:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "Of that tuning; by default chosen",
        "this file is no mask",
        "Episodes a step.",
        "one JSON object a line",
        "Train on only so many images",
        "as seen by whoever trains",
        "and then ...",
        "hold the bar",
    ],
)
def test_the_patterns_find_what_they_refuse(text: str) -> None:
    assert list(faults("x.py", text))


@pytest.mark.parametrize(
    "text",
    [
        "there is no folder there",
        "Write a line to the log, one row at a time.",
        "it is no longer there",
        "Frames per second, of a step.",
        "Barcodes on the floorplan",
    ],
)
def test_the_patterns_leave_plain_words(text: str) -> None:
    assert not list(faults("x.py", text))
