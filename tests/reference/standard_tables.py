"""The tables of the DICOM standard, from the package dicom-standard, as dicom-validator takes them.

dicom-validator makes its tables of the standard's docbook files, which it downloads. These come from a package with the
same documents as JSON, so they are always the same and need no network. The sentences in them ("Required if ...",
"Enumerated Values") are read by dicom-validator's own parsers.

The package is of April 2020, and has the data elements of the edition of that spring. It does not say which functional
groups must not be shared by all frames. What has to be different for our objects is in ``AMENDMENTS``, with reasons.
"""

import json
import re
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from dicom_validator.spec_reader.condition import ConditionType
from dicom_validator.spec_reader.condition_parser import ConditionParser
from dicom_validator.spec_reader.enum_parser import EnumParser
from dicom_validator.validator.dicom_info import DicomInfo
from lxml.etree import Element, SubElement, _Element, fromstring

Row = dict[str, Any]

AMENDMENTS: dict[str, list[Row]] = {
    # CP-2061 of 2021 took Spacing Between Slices from the MR Image module to Image Plane, which CT has as well
    "module_to_attributes": [
        {
            "moduleId": "image-plane",
            "path": "image-plane:00180088",
            "tag": "(0018,0088)",
            "type": "3",
            "description": "<td/>",
            "externalReferences": [],
        },
        # The SC Multi-frame Image module overrides what Multi-frame demands, if there is one frame alone
        {
            "moduleId": "multi-frame",
            "path": "multi-frame:00280009",
            "tag": "(0028,0009)",
            "type": "1C",
            "description": "<td>Required if Number of Frames (0028,0008) is greater than 1.</td>",
            "externalReferences": [],
        },
    ],
    # The standard lets captures have the Multi-frame Dimension module, but lists no group for the values of dimensions,
    # neither here nor in the newer tables of highdicom 0.28.2. With one, files belong to a Standard Extended SOP Class.
    "ciod_to_fg_macros": [
        {
            "ciodId": "multi-frame-grayscale-word-sc-image",
            "macroId": "frame-content",
            "usage": "U",
            "conditionalStatement": None,
        }
    ],
}
"""Rows that are added to a table or replace one, by the name of its file; all others are taken as they are."""

# lists of conditions are more than the parser can read; the first of each is enough to demand an attribute
_ALTERNATIVES = re.compile(r"Required if: (.*?), or .*")
_FRAME_GROUPS = ("(5200,9229)", "(5200,9230)")  # shared by all frames, and of each
_DOCBOOK = EnumParser.docbook_ns


def standard_tables(objects: set[str]) -> DicomInfo:
    """Return the tables for objects, by their names in the standard, e.g. ``MR Image``."""
    names = {row["id"]: row["name"] for file in ("ciods", "modules", "macros") for row in _table(file)}
    wanted = {row["id"] for row in _table("ciods") if row["name"] in objects}
    reader = _Reader()
    iods: dict[str, Row] = {ciod: {"title": names[ciod], "modules": {}, "group_macros": {}} for ciod in wanted}
    modules: dict[str, Row] = {}
    for kind, file, part in (("module", "ciod_to_modules", "modules"), ("macro", "ciod_to_fg_macros", "group_macros")):
        for row in _table(file):
            if row["ciodId"] in wanted:
                entry = {"ref": f"{kind} {row[f'{kind}Id']}", "use": row["usage"]}
                if row["conditionalStatement"]:
                    entry["cond"] = reader.conditions.parse(row["conditionalStatement"]).result_dict()
                iods[row["ciodId"]][part][names[row[f"{kind}Id"]]] = entry
                modules[entry["ref"]] = {}
        for row in _table(f"{kind}_to_attributes"):
            if (attributes := modules.get(f"{kind} {row[f'{kind}Id']}")) is not None:
                _add(attributes, row["path"].split(":")[1:], reader.attribute(row))
    by_name = {iod["title"]: iod for iod in iods.values()}
    classes = {row["id"]: by_name[row["ciod"]] for row in _table("sops") if row["ciod"] in by_name}
    return DicomInfo(reader.dictionary, classes, modules)


def _table(name: str) -> Any:
    """What a file of the package holds, which lies outside of its folder of Python modules."""
    (found,) = (file for file in distribution("dicom-standard").files or [] if file.name == f"{name}.json")
    rows = json.loads(Path(str(found.locate())).read_text(encoding="utf-8"))
    return rows + AMENDMENTS[name] if name in AMENDMENTS else rows


def _add(attributes: Row, path: list[str], attribute: Row) -> None:
    """Put an attribute where its path through sequences leads."""
    *sequences, own = [_tag(f"({tag[:4]},{tag[4:]})") for tag in path]
    for sequence in sequences:
        attributes = attributes[sequence].setdefault("items", {})
    attributes[own] = attribute


class _Reader:
    """Reads what the standard says of an attribute in words."""

    def __init__(self) -> None:
        self.dictionary = {
            _tag(row["tag"]): {
                "name": row["name"],
                "vr": row["valueRepresentation"],
                "vm": row["valueMultiplicity"],
                "prop": "RET" if row["retired"] == "Y" else "",
            }
            for row in _table("attributes")
        }
        self.conditions = ConditionParser(self.dictionary)
        self._sections = {url.rpartition("#sect_")[2]: html for url, html in _table("references").items()}
        self._enums = EnumParser(self._section, self.conditions)

    def attribute(self, row: Row) -> Row:
        tag = _tag(row["tag"])
        found: Row = {"name": self.dictionary[tag]["name"], "type": row["type"]}
        if tag in _FRAME_GROUPS:
            found["items"] = {"include": [{"ref": "FuncGroup"}]}  # those of the object that is judged
        if row["type"] in ("1C", "2C", "3"):
            text = _ALTERNATIVES.sub(r"Required if \1.", _words(fromstring(row["description"])))
            condition = self.conditions.parse(text)
            if condition.type != ConditionType.UserDefined:
                found["cond"] = condition.result_dict()
        links = [link["sourceUrl"] for link in row["externalReferences"]]
        lists = self._enums.parse(_docbook(row["description"], links), self.dictionary[tag]["vr"])
        own = [_with_plain_condition(values) for values in lists if values.get("tag", tag) == tag]
        return found | ({"enums": own} if own else {})

    def _section(self, name: str) -> _Element | None:
        return _docbook(self._sections[name]) if name in self._sections else None


def _with_plain_condition(values: Row) -> Row:
    return {**values, "cond": values["cond"].result_dict()} if "cond" in values else values


def _docbook(html: str, links: Iterable[str] = ()) -> _Element:
    """The lists of values of a text, and its links to other sections, the way the standard's source has them."""
    node = Element(f"{_DOCBOOK}section")
    for box in fromstring(html).findall("div"):
        title = box.find("p/strong")
        if title is not None and box.find("dl") is not None:
            values = SubElement(node, f"{_DOCBOOK}variablelist")
            SubElement(values, f"{_DOCBOOK}title").text = _words(title)
            for term in box.findall("dl/dt"):
                SubElement(SubElement(values, f"{_DOCBOOK}varlistentry"), f"{_DOCBOOK}term").text = _words(term)
    for link in links:
        SubElement(SubElement(node, f"{_DOCBOOK}para"), f"{_DOCBOOK}xref", linkend=link.rpartition("#")[2])
    return node


def _words(node: _Element) -> str:
    return " ".join(" ".join(node.itertext()).split())


def _tag(text: str) -> str:
    """As dicom-validator writes it; the groups that may repeat have small letters, as in ``(60xx,0010)``."""
    return text.upper().replace("X", "x")
