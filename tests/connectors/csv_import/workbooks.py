"""Small .xlsx workbooks, part by part, also such as no spreadsheet program would write."""

import zipfile
from pathlib import Path

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
# Style 0: none; 1: a date; 2: a date and time; 3: a percentage.
STYLES = f'<styleSheet xmlns="{_MAIN}"><cellXfs count="4"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/><xf numFmtId="10"/></cellXfs></styleSheet>'


def write_workbook(path: Path, sheets: dict[str, str], *, shared: str = "", head: str = "", styles: str = STYLES) -> Path:
    """Write a workbook.

    Args:
        sheets: name -> its rows, as XML.
        shared: items of the shared texts, as XML.
        head: XML before each sheet's root.
    """
    names = list(sheets)
    entries = "".join(f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"/>' for number, name in enumerate(names, 1))
    links = "".join(
        f'<Relationship Id="r{number}" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet{number}.xml"/>' for number in range(1, len(names) + 1)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("[Content_Types].xml", f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>')
        book.writestr("_rels/.rels", _relate(f'<Relationship Id="r1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/>'))
        book.writestr("xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>{entries}</sheets></workbook>')
        book.writestr("xl/_rels/workbook.xml.rels", _relate(links))
        book.writestr("xl/styles.xml", styles)
        if shared:
            book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{_MAIN}">{shared}</sst>')
        for number, name in enumerate(names, 1):
            book.writestr(f"xl/worksheets/sheet{number}.xml", f'{head}<worksheet xmlns="{_MAIN}"><sheetData>{sheets[name]}</sheetData></worksheet>')
    return path


def row(number: int, **cells: str) -> str:
    """A row as XML, its cells by their columns: `n:5`, `date:46053`, `time:46053.5`, `percent:0.1`, `b:1`, `e:#N/A`, `s:0`; all else is text."""
    return f'<row r="{number}">' + "".join(_cell(f"{column}{number}", text) for column, text in cells.items()) + "</row>"


def _cell(reference: str, text: str) -> str:
    kind, value = text.split(":", 1) if ":" in text else ("", text)
    if kind == "n":
        return f'<c r="{reference}"><v>{value}</v></c>'
    if kind in ("date", "time", "percent"):
        return f'<c r="{reference}" s="{("", "date", "time", "percent").index(kind)}"><v>{value}</v></c>'
    if kind in ("b", "e", "s"):
        return f'<c r="{reference}" t="{kind}"><v>{value}</v></c>'
    return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _relate(links: str) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>'
