"""The frame of a report, and its parts. Pure. Text is escaped, but for parameters called ``markup``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from local.report.numbers import ABSENT
from services.runtime.style import STYLE


def page(title: str, parts: Sequence[str]) -> str:
    """The whole file; ``parts``: markup."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>recloop: {escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def head(title: str, markup: str) -> str:
    """What it is, and what came out in a sentence or two."""
    return f"<header><h1>{escape(title)}</h1><p>{markup}</p></header>"


def verdict(failed: Sequence[str]) -> str:
    """The checks that do not hold."""
    if not failed:
        return '<p class="ok">Every check holds.</p>'
    items = "".join(f"<li>{escape(one)}</li>" for one in failed)
    return f'<div class="bad"><b>Does not hold:</b><ul>{items}</ul></div>'


def section(title: str, markup: str, text: str = "") -> str:
    """``text``: markup too, what the reader has to know."""
    said = f"<p class='text'>{text}</p>" if text else ""
    return f"<section><h2>{escape(title)}</h2>{said}{markup}</section>"


def beside(blocks: Sequence[str]) -> str:
    """Pieces of markup beside each other where there is room, below each other on a phone."""
    return f'<div class="grid2">{"".join(f"<div>{block}</div>" for block in blocks)}</div>'


def table(header: Sequence[str], markup: Sequence[Sequence[str]], *, prose: bool = False) -> str:
    """``prose``: cells of words, which may wrap."""
    above = "".join(f"<th>{escape(one)}</th>" for one in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in markup)
    kind = " class=prose" if prose else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{above}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def made_with(setup: Mapping[str, Any]) -> str:
    """The section on what a run was made with, of local.report.setup."""
    facts = [
        ("commit", f"<code>{escape(str(setup['commit']))}</code>"),
        ("seed", escape(", ".join(f"{name} {value}" for name, value in setup["seeds"].items())) or ABSENT),
        ("command", f"<code>{escape(setup['command'])}</code>"),
        ("machine", escape(", ".join(f"{name} {value}" for name, value in setup["machine"].items()))),
        ("reported", escape(setup["reported_at"])),
    ]
    settings = [
        (f"<code>{escape(process)}</code>", f"<code>{escape(name)}</code>", f"<code>{escape(value)}</code>")
        for process, changed in setup["settings"].items()
        for name, value in changed.items()
    ]
    listed = (
        table(("process", "setting", "value"), settings, prose=True)
        if settings
        else "<p class='text'>All settings are the defaults.</p>"
    )
    return section(
        "How it was made",
        table(("", ""), facts, prose=True) + "<h3>Settings that are not the defaults</h3>" + listed,
    )
