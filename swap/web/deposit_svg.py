"""Where to pay, as a picture: a QR code, and under it in words everything that it holds or leaves out."""

from __future__ import annotations

import io
from typing import Any
from xml.sax.saxutils import escape

import segno

from swap.addresses import memo_rule

_WIDTH, _MARGIN, _LINE, _FONT = 360, 20, 20, 14
# What fits into the width in a monospaced font of this size.
_CHARACTERS = 38


def deposit_svg(order: dict[str, Any]) -> bytes:
    """The picture for an order that may be paid, as the API shows it. The code holds `deposit.uri`, else the address.

    The memo stands under it always: a wallet may read the address out of any code, and the memo out of none.
    """
    deposit = order["deposit"]
    side = _WIDTH - 2 * _MARGIN
    lines = [("Pay exactly", [f"{deposit['amount']} {order['from']['currency']} on {deposit['network']}"])]
    lines.append(("Address" if deposit["kind"] == "address" else "Pay at", [deposit["address"]]))
    if deposit["memo"] is not None:
        name = memo_rule(order["from"]["currency"], order["from"]["network"]).name
        lines.append((f"{name.capitalize()} (without it the payment is lost)", [deposit["memo"]]))
    y = _MARGIN + side + _LINE
    words = []
    for title, texts in lines:
        words.append(_text(y, title, "label"))
        for row in (row for text in texts for row in _rows(text)):
            y += _LINE
            words.append(_text(y, row, "value"))
        y += _LINE * 3 // 2
    style = (
        f"text{{font:{_FONT}px ui-monospace,Menlo,Consolas,monospace;fill:#000}}"
        ".label{fill:#555;font-family:system-ui,sans-serif}"
    )
    code = _code(deposit["uri"] or deposit["address"], side)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" role="img">'
        f"<title>Deposit for order {escape(order['id'])}</title><style>{style}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{code}{"".join(words)}</svg>'
    ).encode()


def _code(content: str, side: int) -> str:
    """A picture of its own within ours, so that it keeps its own units."""
    try:
        code = segno.make(content, error="m", micro=False)
    except segno.DataOverflowError:
        return ""  # a link of some kilobytes, which the text shows anyway
    drawn = io.BytesIO()
    code.save(drawn, kind="svg", xmldecl=False, svgns=False, nl=False, border=4, omitsize=True)
    place = f'<svg x="{_MARGIN}" y="{_MARGIN}" width="{side}" height="{side}" '
    return drawn.getvalue().decode().replace("<svg ", place, 1)


def _text(y: int, text: str, style: str) -> str:
    return f'<text x="{_MARGIN}" y="{y}" class="{style}" xml:space="preserve">{escape(text)}</text>'


def _rows(text: str) -> list[str]:
    """Cut to the width. XML has no place for control characters; what holds one is no memo that could be typed."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return [clean[start : start + _CHARACTERS] for start in range(0, len(clean), _CHARACTERS)]
