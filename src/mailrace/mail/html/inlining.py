"""Style sheets moved into the elements they style, as mail programs want them.

Only `style` attributes and the contents of `<style>` change. css-inline is shown the bare tags and
asked what each element's style comes to. Its own output is not used: a tree parsed and written anew
has template tags moved out of tables, their operators escaped, and closed what a condition leaves
open.
"""

import re
from typing import Final, assert_never

from css_inline import CSSInliner

from mailrace.mail.html.masking import MaskedHtml, TagKind
from mailrace.mail.html.rules import without_positions
from mailrace.mail.html.tags import Finder, Span, StartTag, StyleContent, replaced

_NUMBER: Final = "data-mailrace-number"
_EMPTY_STYLE: Final = re.compile(r"<style[^>]*>\s*</style\s*>[ \t]*\n?", re.IGNORECASE)
# Elements that the inliner does not see, and values that bring elements of their own.
_UNSEEN: Final = re.compile(r"<!--\s*\[if|<!\[if|<noscript|<template", re.IGNORECASE).search
_MARKUP: Final = re.compile(r"\bsafe\b").search
_CUSTOM_PROPERTY: Final = re.compile(r"--[\w-]+\s*:").search
_MEDIA: Final = ("", "all", "screen")


def inline_css(html: str) -> str:
    """The template with its style sheets in the elements' `style` attributes.

    What cannot stand in an attribute (media queries, `:hover`, fonts) stays in its `<style>`, and
    so does a whole style sheet that has a template tag in it or is for print. All of it stays if
    some element's need for it cannot be told: its class is a template's to decide, or it stands in
    a conditional comment. Nothing is loaded from anywhere: linked style sheets stay links.

    Raises:
        MisuseError: A template tag is wrong; with the line.
    """
    if "<style" not in html.lower():
        return html
    masked = MaskedHtml(html)
    events = Finder(masked.html).events
    sheets = [
        event for event in events if isinstance(event, StyleContent) and _movable(event, masked)
    ]
    if not sheets:
        return html
    rules = _rules(sheets, masked)
    keeps = _keeps_sheets(events, sheets, rules, masked)
    inliner = CSSInliner(
        load_remote_stylesheets=False,
        keep_style_tags=True,
        remove_inlined_selectors=not keeps,
        resolve_css_variables=True,
    )
    styled = Finder(inliner.inline(_skeleton(events, rules, masked)))
    changed = replaced(masked.html, _changes(events, [] if keeps else sheets, styled, masked))
    return masked.unmasked(_EMPTY_STYLE.sub("", changed))


def _movable(sheet: StyleContent, masked: MaskedHtml) -> bool:
    media = (sheet.tag.attribute("media") or "").strip().lower()
    return media in _MEDIA and not masked.word.search(sheet.source)


def _rules(sheets: list[StyleContent], masked: MaskedHtml) -> dict[StyleContent, str]:
    """What of each style sheet may be moved."""
    if any(tag.kind is TagKind.STATEMENT for tag in masked.tags):
        return {sheet: without_positions(sheet.source) for sheet in sheets}
    return {sheet: sheet.source for sheet in sheets}


def _keeps_sheets(
    events: list[StartTag | StyleContent | str],
    sheets: list[StyleContent],
    rules: dict[StyleContent, str],
    masked: MaskedHtml,
) -> bool:
    return (
        any(rules[sheet] != sheet.source or _CUSTOM_PROPERTY(sheet.source) for sheet in sheets)
        or _UNSEEN(masked.html) is not None
        or any(tag.kind is TagKind.VALUE and _MARKUP(tag.source) for tag in masked.tags)
        or any(isinstance(event, StartTag) and _depends(event, masked) for event in events)
    )


def _depends(tag: StartTag, masked: MaskedHtml) -> bool:
    """Whether a template decides which rules an element falls under."""
    has_mask = masked.word.search
    return bool(has_mask(tag.source)) and any(
        has_mask(name) or (name in ("class", "id") and has_mask(value))
        for name, value in tag.attributes()
    )


def _skeleton(
    events: list[StartTag | StyleContent | str],
    rules: dict[StyleContent, str],
    masked: MaskedHtml,
) -> str:
    """The document's tags, each with its number, and the style sheets to be moved."""
    pieces = []
    for number, event in enumerate(events):
        match event:
            case StyleContent():
                pieces.append(rules.get(event, ""))
            case StartTag(name="link" | "base" | "script"):
                pass
            case StartTag():
                bare = StartTag(0, _without_masked_style(event, masked), event.name)
                pieces.append(bare.with_attribute(_NUMBER, str(number)))
            case str(name):
                pieces.append(f"</{name}>")
            case _:
                assert_never(event)
    return "".join(pieces)


def _without_masked_style(tag: StartTag, masked: MaskedHtml) -> str:
    return tag.without_attribute("style") if _masked_style(tag, masked) else tag.source


def _masked_style(tag: StartTag, masked: MaskedHtml) -> str:
    """The style attribute, if it has a template tag in it."""
    style = tag.attribute("style") or ""
    return style if masked.word.search(style) else ""


def _changes(
    events: list[StartTag | StyleContent | str],
    left: list[StyleContent],
    styled: Finder,
    masked: MaskedHtml,
) -> list[tuple[Span, str]]:
    styles = {
        int(tag.attribute(_NUMBER) or -1): tag.attribute("style") for tag in styled.start_tags
    }
    left_over = {
        int(event.tag.attribute(_NUMBER) or -1): event.source
        for event in styled.events
        if isinstance(event, StyleContent)
    }
    changes: list[tuple[Span, str]] = []
    for number, event in enumerate(events):
        if isinstance(event, StyleContent) and event in left:
            changes.append((event, left_over.get(number - 1, "")))
        elif isinstance(event, StartTag) and not _depends(event, masked):
            style = styles.get(number)
            # Where no style sheet had a say, what was written stays.
            if style and style != event.attribute("style"):
                joined = _joined(style, _masked_style(event, masked))
                changes.append((event, event.with_attribute("style", joined)))
    return changes


def _joined(style: str, own: str) -> str:
    joined = "; ".join(filter(None, (style.rstrip("; "), own)))
    # Some mail programs do not decode &quot; in a style.
    return joined if "'" in joined else joined.replace('"', "'")
