"""The text of code and pages avoids phrases that readers stumble over; CONTRIBUTING.md says why."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.paths import ROOT
from tests.project.test_style import python_files, tracked

HISTORY = ("CHANGELOG.md",)  # says what was, in the words of its time

OPENING = re.compile(r"(What|Who|Whose|Which|How|Of|Whether)\b")
"""First words that make a docstring a riddle: its subject comes late or never."""
SENTENCE = re.compile(r"(?:^[\s>*-]*|(?<=[.;!?] ))(?:Who|Whose|What|Of|Whether)\b[^.?!]*[.!]", re.M)
"""A sentence whose subject is a free relative ("What is drawn is kept."); questions are fine."""

INSTEAD = {
    r"told|tells|telling|(?<!ask and )tell": "report, state, show, distinguish",
    r"beside": "next to, in addition to, compared with",
    r"anew": "again; resampled, recomputed",
    r"of (?:its|their|our) own": "its own, a separate",
    r"less (?-i:the|its|their|what|that)": "minus",
    r"there (?:is|are) none|that (?:is|are) none": "missing, absent, invalid",
    r"abilit(?:y|ies)": "capability",
    r"nobody|anybody|somebody|whoever": "the caller, the user, no component",
    r"whatever": "every, any, regardless of",
    r"found out": "measured, recorded",
    r"gives? away": "reveal, carry information about",
    r"by heart": "memorised",
    r"newborn|lived through|without a past": "new; experienced",
    r"taken in": "inserted",
    r"dear|dearly|dearer": "expensive",
    r"spread evenly|evenly spread": "evenly spaced, uniformly distributed",
    r"flatters?|obeys?|hears?": "inflate, follow, receive",
    r"(?-i:vae-dred)": "dred",
}
PHRASES = re.compile(rf"\b(?:{'|'.join(f'({x})' for x in INSTEAD)})\b", re.I)


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Strings that document what stands around or before them."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                yield value


def comments(source: str) -> str:
    """All comments, those on consecutive lines joined."""
    kept, last = [], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kept.append((" " if token.start[0] == last + 1 else "\n") + token.string.lstrip("# "))
            last = token.start[0]
    return "".join(kept)


def breaches_in_code(source: str) -> list[str]:
    """Riddles and phrases in docstrings, comments and messages."""
    tree = ast.parse(source)
    documents = list(docstrings(tree))
    texts = [str(one.value) for one in documents]
    known = {id(one) for one in documents}
    nodes = list(ast.walk(tree))
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    messages = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known
    ]
    # The parts of an f-string also as a whole, since a part can be a single word.
    messages += [
        "".join(str(x.value) if isinstance(x, ast.Constant) else "{}" for x in one.values)
        for one in formatted
    ]
    found = [text.strip().partition("\n")[0] for text in texts if OPENING.match(text.strip())]
    found += [one for text in [*texts, comments(source)] for one in SENTENCE.findall(text)]
    spoken = [text for text in messages if " " in text.strip()]
    return found + [one for text in [*texts, *spoken, comments(source)] for one in phrases(text)]


def breaches_in_page(markdown: str) -> list[str]:
    """The same of a page, outside of code."""
    prose = re.sub(r"```.*?```|`[^`\n]+`", "", markdown, flags=re.S)
    return SENTENCE.findall(prose) + phrases(prose)


def phrases(text: str) -> list[str]:
    """Phrases to avoid, each with what to write."""
    found = []
    prose = re.sub(r"`[^`\n]+`", "", text)  # names of code are not prose
    prose = re.sub(r"\s+", " ", prose)  # a phrase can continue on the next line
    for match in PHRASES.finditer(prose):
        instead = list(INSTEAD.values())[(match.lastindex or 1) - 1]
        found.append(f"{match[0]!r} in {prose[max(match.start() - 30, 0) : match.end() + 30]!r}")
        found[-1] += f"; write {instead}"
    return found


def test_code_speaks_plainly():
    texts = {name: text for name, text in python_files().items() if not name.endswith("words.py")}
    found = {name: breaches_in_code(text) for name, text in texts.items()}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_pages_speak_plainly():
    pages = [p for p in tracked() if p.suffix in (".md", ".html") and p.name not in HISTORY]
    found = {p.relative_to(ROOT).as_posix(): breaches_in_page(p.read_text()) for p in pages}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "bad",
    [
        '"""What the sampler reads."""',
        '"""Draw levels. What is drawn is kept."""',
        "x = 1  # beside the buffer",
        "# the mean less\n# the value",
        'raise ValueError("the file is told apart")',
        'raise ValueError(f"{one} beside {other}")',
        '"""Draw levels.\n\n    What is drawn is kept.\n    """',
        '"""Draw levels that were found\n    out.\n    """',
    ],
)
def test_a_riddle_in_code_is_seen(bad):
    assert len(breaches_in_code(bad)) >= 1


@pytest.mark.parametrize(
    "good",
    [
        '"""Return the outcome fields that the sampler reads."""',
        '"""Draw levels. What happens if there are two? The first is kept."""',
        'told = ["beside"]  # names are not prose',
        "x = 1  # fewer than the others",
    ],
)
def test_plain_code_is_left_alone(good):
    assert breaches_in_code(good) == []


def test_a_riddle_on_a_page_is_seen():
    page = "# Levels\n\nWhat is new is played. Whoever plays `told` is told.\n"
    assert len(breaches_in_page(page)) == 3
