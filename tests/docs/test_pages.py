"""README and pages name files that exist, and link to pages and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
# What begins so and is written as code is a path of the repository.
FOLDERS = r"(?:\.ci|\.github|bench|csrc|docs|mlpkern|notebooks|tests)/"
# Made by a build or a benchmark, not kept.
MADE = re.compile(r"bench/out\b|bench/results/[\w-]*DATE|mlpkern/_(?:C|cuda)\b")

# Files of a reader, not of the repository.
EXAMPLES = {"names.txt", "step.py", "table.txt", "log.txt"}


def prose(text: str) -> str:
    """The text without what is written as code."""
    return re.sub(r"`[^`]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def code(text: str) -> list[str]:
    """All that is written as code: between backticks, or in a fence."""
    fences = re.findall(r"^```.*?^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return fences + re.findall(r"`([^`]+)`", rest)


def paths(text: str) -> set[str]:
    found = set()
    for piece in code(text):
        found |= set(re.findall(rf"(?<![\w/.$-]){FOLDERS}[\w./<>*{{}},-]*", piece))
    return {path.rstrip(".,") for path in found}


def exists(path: str) -> bool:
    """Whether a path, or a pattern such as csrc/cpu/<op>.cpp and a/{b,c}.py, names files."""
    if braces := re.search(r"\{([^}]*)\}", path):
        ends = path[: braces.start()], path[braces.end() :]
        return all(exists(part.strip().join(ends)) for part in braces[1].split(","))
    return any(ROOT.glob(re.sub(r"<\w+>|\*+", "*", path).replace("**", "*").rstrip("/")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_exists(page):
    named = paths(page.read_text(encoding="utf-8"))
    assert [path for path in sorted(named) if not MADE.match(path) and not exists(path)] == []


def test_every_source_file_named_without_its_folder_exists():
    folders = (ROOT / name for name in ("bench", "csrc", "docs", "mlpkern", "notebooks", "tests"))
    known = {path.name for folder in folders for path in folder.rglob("*.*")}
    known |= {path.name for path in ROOT.iterdir()} | EXAMPLES
    for page in PAGES:
        spans = re.findall(r"`([\w-]+\.(?:py|pyi|h|cpp|cu|cuh|sh|txt))`", page.read_text("utf-8"))
        assert [name for name in spans if name not in known] == [], page


def test_a_path_that_does_not_exist_is_found():
    text = "`bench/run.py` and `csrc/cpu/<op>.cpp`, `mlpkern/{nn,no}.py`\n```\nbench/no.py\n```"
    wrong = [path for path in paths(text) if not exists(path)]
    assert sorted(wrong) == ["bench/no.py", "mlpkern/{nn,no}.py"]


def slugs(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        if found.parent == ROOT / "docs" / "results":  # docs/hooks.py puts these into the site
            found = ROOT / "bench" / "results" / found.name
        assert found.exists(), target
        assert not anchor or anchor in slugs(found), target


def test_the_readme_is_short():
    assert len(TOP[0].read_text(encoding="utf-8").splitlines()) < 200


def test_no_page_names_a_machine_or_a_host_of_packages():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page in (ROOT / "README.md", ROOT / "docs" / "install.md"):
            # The CUDA build of torch is the default, and 5.7 GB.
            assert "\n```\n$ pip install torch " in text or "\n```\npip install torch " in text
            text = text.replace("--index-url https://download.pytorch.org/whl/cpu", "", 1)
        assert not re.search(r"/(?:home|root|Users|work)/|pypi\.org|download\.pytorch", text), page
