"""Rows -> the bytes of an .xlsx workbook with one sheet: dates, numbers and texts, and nothing else."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import date
from xml.sax.saxutils import escape

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_TYPES = (
    f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_SHEET_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_SHEET_TYPE}.styles+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_SHEET_TYPE}.worksheet+xml"/></Types>'
)
# Style 1 shows a number as a date.
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills><borders count="1"><border/></borders>'
    '<cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="2"><xf/><xf numFmtId="14" applyNumberFormat="1"/></cellXfs></styleSheet>'
)
# Spreadsheets count days from here.
_DAY_ZERO = date(1899, 12, 30)
_WRITTEN = (2019, 1, 1, 0, 0, 0)


def build_workbook(sheet: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Build a workbook; the same rows give the same content."""
    lines = "".join(f'<row r="{number}">{"".join(map(_build_cell, row))}</row>' for number, row in enumerate([header, *rows], start=1))
    named = f'<sheet name="{escape(sheet)}" sheetId="1" r:id="r1"/>'
    parts = {
        "[Content_Types].xml": _TYPES,
        "_rels/.rels": _relate(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>{named}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _relate(("worksheet", "worksheets/sheet1.xml"), ("styles", "styles.xml")),
        "xl/styles.xml": _STYLES,
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as book:
        for name, text in parts.items():
            book.writestr(zipfile.ZipInfo(name, _WRITTEN), f'<?xml version="1.0" encoding="UTF-8"?>{text}', zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _build_cell(value: object) -> str:
    if isinstance(value, date):
        return f'<c s="1"><v>{(value - _DAY_ZERO).days}</v></c>'
    if isinstance(value, (int, float)):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'


def _relate(*targets: tuple[str, str]) -> str:
    links = "".join(f'<Relationship Id="r{number}" Type="{_RELATIONS}/{kind}" Target="{target}"/>' for number, (kind, target) in enumerate(targets, start=1))
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>'
