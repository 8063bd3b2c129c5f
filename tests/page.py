"""A page of the documentation, as tests read it: its code blocks, its headings, and its links."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r" *```(\w*)")
HEADING = re.compile(r"#+ (.+)")
MARK = re.compile(r" *<!-- not run: (.+) -->")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
BEGINS = re.compile(r"\s*(?:[-*|]|\d+\.|#+) ")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the heading above it, the line in which it begins, and why it is not run (None: it is run)."""

    heading: str
    line: int
    language: str
    text: str
    mark: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a reader types, and the output that the page shows for it."""

    typed: str
    said: str


class Page:
    """One page. `name` is its path in the repository."""

    def __init__(self, repository: Path, name: str) -> None:
        self.name, self.path = name, repository / name
        self.text = self.path.read_text()
        self.lines = self.text.splitlines()
        self.blocks: list[Block] = []
        self.headings: list[str] = []
        prose: list[str] = []
        inside, begun, mark, language = False, 0, None, ""
        for number, line in enumerate(self.lines, 1):
            fence = FENCE.match(line)
            if fence and not inside:
                begun, language = number, fence[1]
                above = MARK.fullmatch(self.lines[number - 2]) if number > 1 else None
                mark = above[1] if above else None
            elif fence:
                text = "\n".join(self.lines[begun : number - 1]) + "\n"
                self.blocks.append(Block(self.headings[-1], begun, language, text, mark))
            elif not inside:
                prose.append(line)
                if heading := HEADING.fullmatch(line):
                    self.headings.append(heading[1])
            inside = inside != bool(fence)
        self.prose = "\n".join(prose)

    @property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as GitHub derives them."""
        found: list[str] = []
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", heading).lower()).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
        return set(found)

    @property
    def links(self) -> Iterator[tuple[str, str]]:
        """The text and the target of each link to a file of the repository, or to a heading of the page."""
        return ((text, target) for text, target in LINK.findall(self.prose) if "://" not in target)

    @property
    def indented(self) -> list[int]:
        """The lines in which Markdown would begin an indented code block."""
        lines = self.prose.splitlines()
        return [at for at, line in enumerate(lines) if line.startswith("    ") and not lines[at - 1].strip()]

    @property
    def passages(self) -> Iterator[str]:
        """The paragraphs, list items, and table rows."""
        passage: list[str] = []
        for line in [*self.prose.splitlines(), ""]:
            if passage and (not line.strip() or BEGINS.match(line)):
                yield "\n".join(passage)
                passage = []
            if line.strip():
                passage.append(line)


def commands(block: Block) -> list[Command]:
    """Returns the command after each `$`, with its continuation lines, and the output below it."""
    found: list[Command] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed is not None
        found.append(Command(typed[0].strip(), part[typed.end() :]))
    return found


def pages(repository: Path) -> list[Page]:
    """Returns all pages of the repository, except those in hidden folders."""
    names: list[str] = []
    for folder, below, files in os.walk(repository):
        below[:] = sorted(name for name in below if not name.startswith("."))
        names += [os.path.relpath(Path(folder) / file, repository) for file in sorted(files) if file.endswith(".md")]
    return [Page(repository, name) for name in names]
