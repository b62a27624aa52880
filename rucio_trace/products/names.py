"""What a product's name says of it, under the names of Copernicus' OData catalogue.

Names follow published conventions so strictly that they can be read; a name that does not follow
one yields nothing rather than a guess. Pure.

Source: Sentinel-1 Product Specification (S1-RS-MDA-52-7441), 3.4; Sentinel-2 Products Specification
Document (S2-PDGS-TAS-DI-PSD), 3.4; Sentinel-3 PDGS File Naming Convention
(EUM/LEO-SEN3/SPE/10/0070); Sentinel-5P File Naming (S5P-KNMI-L2-0001); Jason-CS/Sentinel-6 Generic
Product Format Specification (EUM/LEO-JASCS/SPE/17/897975); USGS, Landsat 8-9 Level 1 and Level 2 Data
Format Control Books (LSDS-1822, LSDS-1328), "Product Identifier".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Attributes = dict[str, str | int]

__all__ = ["attributes_of_name"]

_MAX_NAME_CHARACTERS = 200  # the longest convention has 112 with its suffixes

_TIME = r"\d{8}T\d{6}"
_PACKED = r"(\.(zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz))?"


def attributes_of_name(name: str) -> Attributes:
    """What the product's *name*, with or without folders before it, says; empty if it follows no convention."""
    base = name.rpartition("/")[2]
    if len(base) > _MAX_NAME_CHARACTERS or not base.isascii():
        return {}
    for pattern, read in _CONVENTIONS:
        if match := re.fullmatch(pattern, base):  # compiled on first use, then cached by re
            try:
                return _checked(read({key: value for key, value in match.groupdict().items() if value}))
            except ValueError:  # a date that is none
                return {}
    return {}


def _checked(attributes: Attributes) -> Attributes:
    begin, end = attributes.get("beginningDateTime"), attributes.get("endingDateTime")
    if begin and end and str(end) < str(begin):
        raise ValueError("ends before it begins")
    return attributes


def _time(digits: str) -> str:
    return datetime.strptime(digits, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _common(found: dict[str, str], platform: str, instrument: str | None) -> Attributes:
    """The parts that the missions' names have in common."""
    attributes: Attributes = {"platformShortName": platform}
    if "unit" in found:
        attributes["platformSerialIdentifier"] = found["unit"]
    if instrument:
        attributes["instrumentShortName"] = instrument
    for part, attribute in (("begin", "beginningDateTime"), ("end", "endingDateTime"), ("made", "processingDate")):
        if part in found:
            attributes[attribute] = _time(found[part])
    for part, attribute in (("orbit", "orbitNumber"), ("track", "relativeOrbitNumber"), ("cycle", "cycleNumber")):
        if part in found:
            attributes[attribute] = int(found[part])
    for part, attribute in (("center", "processingCenter"), ("tile", "tileId")):
        if value := found.get(part, "").strip("_"):
            attributes[attribute] = value
    return attributes


# Sentinel-1: S1A_IW_GRDH_1SDV_20240514T000628_20240514T000653_053860_068BEC_2F3B.SAFE

_S1 = (
    rf"S1(?P<unit>[A-D])_(?P<mode>S[1-6]|IW|EW|WV|EN|N[1-6]|IM)_(?P<kind>RAW_|SLC_|GRD[FHM]|OCN_|ETA_)_"
    rf"(?P<level>[012A])(?P<class>[SACNX])(?P<polarisation>SH|SV|DH|DV|HH|HV|VV|VH)_"
    rf"(?P<begin>{_TIME})_(?P<end>{_TIME})_(?P<orbit>\d{{6}})_(?P<datatake>[0-9A-F]{{6}})_[0-9A-F]{{4}}"
    rf"(_COG)?(\.SAFE)?{_PACKED}"
)
_POLARISATIONS = {"SH": "HH", "SV": "VV", "DH": "HH&HV", "DV": "VV&VH"}
_S1_TRACKS = 175
_S1_FIRST_ORBIT = {"A": 73, "B": 27}  # of a cycle: where the count of tracks starts


def _sentinel1(found: dict[str, str]) -> Attributes:
    attributes = _common(found, "SENTINEL-1", "SAR")
    attributes["operationalMode"] = found["mode"]
    attributes["productType"] = f"{found['mode']}_{found['kind']}_{found['level']}{found['class']}"
    if found["level"].isdigit():
        attributes["processingLevel"] = f"LEVEL{found['level']}"
    attributes["productClass"] = found["class"]
    attributes["polarisationChannels"] = _POLARISATIONS.get(found["polarisation"], found["polarisation"])
    attributes["datatakeID"] = int(found["datatake"], 16)
    if found["unit"] in _S1_FIRST_ORBIT:
        attributes["relativeOrbitNumber"] = (int(found["orbit"]) - _S1_FIRST_ORBIT[found["unit"]]) % _S1_TRACKS + 1
    return attributes


# Sentinel-2: S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE and, for its parts and its
# older products, S2B_OPER_MSI_L0__GR_EPAE_20181202T205048_S20181202T174333_D09_N02.07

_TILE = r"\d{2}[A-Z]{3}"
_S2 = (
    rf"S2(?P<unit>[A-D])_MSI(?P<level>L1C|L2A)_(?P<begin>{_TIME})_N(?P<baseline>\d{{4}})_R(?P<track>\d{{3}})_"
    rf"T(?P<tile>{_TILE})_(?P<discriminator>{_TIME})(\.SAFE)?{_PACKED}"
)
_S2_PRODUCT = (
    rf"S2(?P<unit>[A-D])_(OPER|USER)_PRD_MSI(?P<level>L1B|L1C|L2A)_(?P<center>[A-Z0-9_]{{4}})_(?P<made>{_TIME})_"
    rf"R(?P<track>\d{{3}})_V(?P<begin>{_TIME})_(?P<end>{_TIME})(\.SAFE)?{_PACKED}"
)
_S2_PART = (
    rf"S2(?P<unit>[A-D])_OPER_(?P<type>MSI_(?P<level>L0_|L1A|L1B|L1C|L2A)_(GR|DS|TL|TC))_"
    rf"(?P<center>[A-Z0-9_]{{4}})_(?P<made>{_TIME})_(S(?P<begin>{_TIME})|A(?P<orbit>\d{{6}}))"
    rf"(_D(?P<detector>\d{{2}}))?(_T(?P<tile>{_TILE}))?_N(?P<baseline>\d{{2}}\.\d{{2}})(\.SAFE)?{_PACKED}"
)


def _sentinel2(found: dict[str, str]) -> Attributes:
    if "discriminator" in found:
        _time(found["discriminator"])  # a date like the others, of no meaning beyond telling products apart
    attributes = _common(found, "SENTINEL-2", "MSI")
    level = found["level"].strip("_")
    attributes["productType"] = found.get("type") or f"S2MSI{level.removeprefix('L')}"
    attributes["processingLevel"] = level if "type" in found else f"S2MSI{level.removeprefix('L')}"
    if "baseline" in found:
        digits = found["baseline"].replace(".", "")
        attributes["processingBaseline"] = f"{digits[:2]}.{digits[2:]}"
    if "detector" in found:
        attributes["detectorId"] = found["detector"]
    return attributes


# Sentinel-3: S3A_OL_2_LFR____20240504T000203_20240504T000503_20240504T021142_0179_112_059_2160_PS1_O_NR_002.SEN3

_S3 = (
    rf"S3(?P<unit>[A-D_])_(?P<type>(?P<source>OL|SL|SR|SY|DO|MW|GN|TM)_(?P<level>[012_])_[A-Z0-9_]{{6}})_"
    rf"(?P<begin>{_TIME})_(?P<end>{_TIME})_(?P<made>{_TIME})_"
    rf"(\d{{4}}_(?P<cycle>\d{{3}})_(?P<track>\d{{3}})_[\d_]{{4}}|(?P<tile>[A-Z][A-Z0-9_]{{16}})|_{{17}})_"
    rf"(?P<center>[A-Z0-9_]{{3}})_[OFDR_]_(?P<timeliness>NR|ST|NT|SN|NS|NN|AL|__)_(?P<collection>[A-Z0-9_]{{3}})"
    rf"(\.SEN3|\.SAFE)?{_PACKED}"
)
_S3_INSTRUMENTS = {"OL": "OLCI", "SL": "SLSTR", "SR": "SRAL", "SY": "SYNERGY", "DO": "DORIS", "MW": "MWR", "GN": "GNSS"}


def _sentinel3(found: dict[str, str]) -> Attributes:
    if found["unit"] == "_":
        del found["unit"]  # made from both satellites
    attributes = _common(found, "SENTINEL-3", _S3_INSTRUMENTS.get(found["source"]))
    attributes["productType"] = found["type"]
    for part, attribute in (
        ("level", "processingLevel"),
        ("timeliness", "timeliness"),
        ("collection", "baselineCollection"),
    ):
        if value := found[part].strip("_"):
            attributes[attribute] = value
    return attributes


# Sentinel-5P: S5P_NRTI_L2__NO2____20240517T002329_20240517T002708_34158_03_020600_20240517T012659.nc

_S5P = (
    rf"S5P_(?P<mode>NRTI|OFFL|RPRO|TEST|OPER|PAL_|ETL_)_(?P<type>(?=.{{10}}_\d)(?P<level>L0|L1B|L2|L3)_[A-Z0-9_]+)_"
    rf"(?P<begin>{_TIME})_(?P<end>{_TIME})_(?P<orbit>\d{{5}})_(?P<collection>\d{{2}})_(?P<version>\d{{6}})_"
    rf"(?P<made>{_TIME})(\.(nc|cdl|RAW|SAFE))?{_PACKED}"
)


def _sentinel5p(found: dict[str, str]) -> Attributes:
    attributes = _common(found, "SENTINEL-5P", "TROPOMI")
    attributes["productType"] = found["type"]
    attributes["processingLevel"] = found["level"]
    attributes["processingMode"] = found["mode"].strip("_")
    attributes["baselineCollection"] = found["collection"]
    attributes["processorVersion"] = ".".join(re.findall("..", found["version"]))
    return attributes


# Sentinel-6: S6A_P4_2__LR______20240501T152036_20240501T165910_20240501T171410_5914_128_043_022_EUM__OPE_NR_F09.SEN6
# and the files in it: S6A_P4_2__LR_STD__NR_128_043_20240501T152036_20240501T165910_F09.nc

_S6_TYPE = (
    r"S6(?P<unit>[AB])_(?P<type>(?P<source>P4|MW|GN|DO|AX|TM|HK|MI)_(?P<level>0_|1A|1B|2_|2P|3_|__)_[A-Z0-9_]{7})_"
)
_S6_TIMELINESS = r"(?P<timeliness>NR|ST|NT|ND)"
_S6 = (
    rf"{_S6_TYPE}(?P<begin>{_TIME})_(?P<end>{_TIME})_(?P<made>{_TIME})_"
    rf"(\d{{4}}_(?P<cycle>\d{{3}})_(?P<pass>\d{{3}})_(?P<track>\d{{3}})|_{{16}})_"
    rf"(?P<center>[A-Z0-9_]{{4}})_(?P<class>[A-Z]{{3}})_{_S6_TIMELINESS}_(?P<collection>[A-Z0-9_]{{3}})"
    rf"(\.SEN6)?{_PACKED}"
)
_S6_FILE = (
    rf"{_S6_TYPE}{_S6_TIMELINESS}_(?P<cycle>\d{{3}})_(?P<pass>\d{{3}})_"
    rf"(?P<begin>{_TIME})_(?P<end>{_TIME})_(?P<collection>[A-Z0-9]{{3}})(\.nc)?"
)
_S6_INSTRUMENTS = {"P4": "POSEIDON-4", "MW": "AMR-C", "GN": "GNSS", "DO": "DORIS"}


def _sentinel6(found: dict[str, str]) -> Attributes:
    attributes = _common(found, "SENTINEL-6", _S6_INSTRUMENTS.get(found["source"]))
    attributes["productType"] = found["type"]
    if "pass" in found:
        attributes["passNumber"] = int(found["pass"])
    for part, attribute in (
        ("level", "processingLevel"),
        ("class", "productClass"),
        ("timeliness", "timeliness"),
        ("collection", "baselineCollection"),
    ):
        if value := found.get(part, "").strip("_"):
            attributes[attribute] = value
    return attributes


# Landsat 8 and 9, Collection 2: LC09_L2SP_016030_20240526_20240527_02_T1

_LANDSAT = (
    rf"L(?P<sensor>[COT])0(?P<unit>[89])_(?P<level>L1TP|L1GT|L1GS|L2SP|L2SR)_(?P<path>\d{{3}})(?P<row>\d{{3}})_"
    rf"(?P<sensed>\d{{8}})_(?P<processed>\d{{8}})_(?P<collection>02)_(?P<category>RT|T1|T2){_PACKED}"
)
_LANDSAT_SENSORS = {"C": "OLI_TIRS", "O": "OLI", "T": "TIRS"}
_LANDSAT_PATHS, _LANDSAT_ROWS = 233, 248  # of the second Worldwide Reference System


def _landsat(found: dict[str, str]) -> Attributes:
    path, row = int(found["path"]), int(found["row"])
    sensed, processed = _day(found["sensed"]), _day(found["processed"])
    if not (1 <= path <= _LANDSAT_PATHS and 1 <= row <= _LANDSAT_ROWS and sensed <= processed):
        raise ValueError("no such scene")
    return {
        "platformShortName": f"LANDSAT-{found['unit']}",
        "instrumentShortName": _LANDSAT_SENSORS[found["sensor"]],
        "productType": found["level"],
        "processingLevel": found["level"][:2],
        "pathNumber": path,
        "rowNumber": row,
        "acquisitionDate": sensed,
        "processingDate": processed,
        "baselineCollection": found["collection"],
        "collectionCategory": found["category"],
    }


def _day(digits: str) -> str:
    return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC).strftime("%Y-%m-%d")


_CONVENTIONS: tuple[tuple[str, Callable[[dict[str, str]], Attributes]], ...] = (
    (_S1, _sentinel1),
    (_S2, _sentinel2),
    (_S2_PRODUCT, _sentinel2),
    (_S2_PART, _sentinel2),
    (_S3, _sentinel3),
    (_S5P, _sentinel5p),
    (_S6, _sentinel6),
    (_S6_FILE, _sentinel6),
    (_LANDSAT, _landsat),
)
