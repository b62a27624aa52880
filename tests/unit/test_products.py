"""Product names as published, what they say, and names that say nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.products import attributes_of, attributes_of_manifest, attributes_of_name

SENTINEL_1 = {
    "S1A_IW_GRDH_1SDV_20200611T090849_20200611T090914_032967_03D196_D46C": {
        "platformShortName": "SENTINEL-1",
        "platformSerialIdentifier": "A",
        "instrumentShortName": "SAR",
        "operationalMode": "IW",
        "productType": "IW_GRDH_1S",
        "productClass": "S",
        "processingLevel": "LEVEL1",
        "polarisationChannels": "VV&VH",
        "beginningDateTime": "2020-06-11T09:08:49Z",
        "endingDateTime": "2020-06-11T09:09:14Z",
        "orbitNumber": 32967,
        "relativeOrbitNumber": 170,
        "datatakeID": 0x03D196,
    },
    "S1A_IW_GRDH_1SDV_20240402T141444_20240402T141510_053256_06745E_D77F_COG.SAFE": {"productType": "IW_GRDH_1S"},
    "S1B_EW_GRDM_1SDH_20180718T023515_20180718T023551_011859_015D43_C280.zip": {
        "platformSerialIdentifier": "B",
        "operationalMode": "EW",
        "productType": "EW_GRDM_1S",
        "polarisationChannels": "HH&HV",
    },
    "S1A_WV_OCN__2SSV_20190518T160559_20190518T161434_027284_0313A0_46F2.SAFE": {
        "productType": "WV_OCN__2S",
        "processingLevel": "LEVEL2",
        "polarisationChannels": "VV",
    },
    "S1A_S6_RAW__0SDV_20231004T082929_20231004T083002_050613_0618E5_2CB0.SAFE.zip": {
        "operationalMode": "S6",
        "productType": "S6_RAW__0S",
        "processingLevel": "LEVEL0",
    },
    "S1B_IW_SLC__1SDV_20191117T140737_20191117T140804_018968_023C8C_82DC.zip": {
        "productType": "IW_SLC__1S",
        "relativeOrbitNumber": 42,
    },
}

SENTINEL_2 = {
    "S2B_OPER_MSI_L0__GR_EPAE_20181202T205048_S20181202T174333_D09_N02.07.tar": {
        "platformShortName": "SENTINEL-2",
        "platformSerialIdentifier": "B",
        "instrumentShortName": "MSI",
        "productType": "MSI_L0__GR",
        "processingLevel": "L0",
        "processingCenter": "EPAE",
        "processingDate": "2018-12-02T20:50:48Z",
        "beginningDateTime": "2018-12-02T17:43:33Z",
        "detectorId": "09",
        "processingBaseline": "02.07",
    },
    "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.zip": {
        "platformShortName": "SENTINEL-2",
        "platformSerialIdentifier": "A",
        "instrumentShortName": "MSI",
        "productType": "S2MSI1C",
        "processingLevel": "S2MSI1C",
        "beginningDateTime": "2023-04-20T10:00:21Z",
        "processingBaseline": "05.09",
        "relativeOrbitNumber": 122,
        "tileId": "33UVP",
    },
    "S2B_MSIL2A_20221127T075159_N0400_R135_T36NXF_20221127T100500.SAFE": {
        "productType": "S2MSI2A",
        "processingBaseline": "04.00",
        "tileId": "36NXF",
    },
    "S2A_OPER_PRD_MSIL1C_PDMC_20160508T221513_R008_V20160508T104027_20160508T104027": {
        "productType": "S2MSI1C",
        "processingCenter": "PDMC",
        "relativeOrbitNumber": 8,
        "beginningDateTime": "2016-05-08T10:40:27Z",
        "endingDateTime": "2016-05-08T10:40:27Z",
    },
    "S2A_OPER_MSI_L1C_TL_SGS__20160929T154211_A006640_T32TPP_N02.04": {
        "productType": "MSI_L1C_TL",
        "processingCenter": "SGS",
        "orbitNumber": 6640,
        "tileId": "32TPP",
        "processingBaseline": "02.04",
    },
    "S2A_OPER_MSI_L2A_DS_2APS_20240308T143352_S20240308T101546_N05.10": {"productType": "MSI_L2A_DS"},
}

SENTINEL_3 = {
    "S3A_OL_1_EFR____20161020T081224_20161020T081524_20161020T102406_0179_010_078_2340_SVL_O_NR_002.SEN3": {
        "platformShortName": "SENTINEL-3",
        "platformSerialIdentifier": "A",
        "instrumentShortName": "OLCI",
        "productType": "OL_1_EFR___",
        "processingLevel": "1",
        "beginningDateTime": "2016-10-20T08:12:24Z",
        "endingDateTime": "2016-10-20T08:15:24Z",
        "processingDate": "2016-10-20T10:24:06Z",
        "cycleNumber": 10,
        "relativeOrbitNumber": 78,
        "processingCenter": "SVL",
        "timeliness": "NR",
        "baselineCollection": "002",
    },
    "S3B_SL_2_LST____20200818T100722_20200818T101022_20200819T161150_0179_042_236_2160_LN2_O_NT_004": {
        "platformSerialIdentifier": "B",
        "instrumentShortName": "SLSTR",
        "productType": "SL_2_LST___",
    },
    "S3B_SR_2_WAT____20210609T191402_20210609T200209_20260315T212241_2886_053_213__426_MAR_R_NT_G62.SEN3": {
        "instrumentShortName": "SRAL",
        "productType": "SR_2_WAT___",
        "baselineCollection": "G62",
    },
    "S3B_SR_2_LAN_SI_20190301T231304_20190301T233006_20230405T162425_1021_022_301______LN3_R_NT_005.SEN3": {
        "productType": "SR_2_LAN_SI",
        "relativeOrbitNumber": 301,
    },
    "S3A_SY_2_V10____20190410T111721_20190420T111721_20190430T120711_EUROPE____________LN2_O_NT_002.SEN3": {
        "instrumentShortName": "SYNERGY",
        "tileId": "EUROPE",
    },
    "S3A_SY_2_V10____20191216T110000_20191226T110000_20200105T114106_ASIAN_ISLANDS_____LN2_O_NT_002.SEN3.zip": {
        "tileId": "ASIAN_ISLANDS",
    },
    "S3A_SL_1_RBT____20200522T231202_20200522T231502_20200524T053503_0179_058_286_5580_LN2_O_NT_004.zip": {
        "productType": "SL_1_RBT___",
    },
}

SENTINEL_5P = {
    "S5P_NRTI_L2__SO2____20190129T101503_20190129T102003_06711_01_010105_20190129T111328.nc": {
        "platformShortName": "SENTINEL-5P",
        "instrumentShortName": "TROPOMI",
        "productType": "L2__SO2___",
        "processingLevel": "L2",
        "processingMode": "NRTI",
        "beginningDateTime": "2019-01-29T10:15:03Z",
        "endingDateTime": "2019-01-29T10:20:03Z",
        "processingDate": "2019-01-29T11:13:28Z",
        "orbitNumber": 6711,
        "baselineCollection": "01",
        "processorVersion": "01.01.05",
    },
    "S5P_OFFL_L2__HCHO___20211009T034853_20211009T053022_20668_02_020201_20211010T193819.nc": {
        "productType": "L2__HCHO__"
    },
    "S5P_OFFL_L2__O3_TCL_20200412T112018_20200418T120638_12940_01_010108_20200427T000159.nc": {
        "productType": "L2__O3_TCL"
    },
    "S5P_OFFL_L1B_RA_BD8_20180630T181331_20180630T195501_03694_01_010000_20180630T214541.nc": {
        "productType": "L1B_RA_BD8",
        "processingLevel": "L1B",
    },
    "S5P_RPRO_L2__CH4____20220701T024730_20220701T042859_24427_03_020400_20230131T104028.nc": {
        "processingMode": "RPRO",
        "productType": "L2__CH4___",
    },
    "S5P_NRTI_L2__CO_____20190921T104303_20190921T104803_10045_01_010302_20190921T124803.nc": {
        "productType": "L2__CO____"
    },
}

SENTINEL_6 = {
    "S6A_P4_2__LR______20240501T152036_20240501T165910_20240501T171410_5914_128_043_022_EUM__OPE_NR_F09.SEN6": {
        "platformShortName": "SENTINEL-6",
        "platformSerialIdentifier": "A",
        "instrumentShortName": "POSEIDON-4",
        "productType": "P4_2__LR_____",
        "processingLevel": "2",
        "beginningDateTime": "2024-05-01T15:20:36Z",
        "endingDateTime": "2024-05-01T16:59:10Z",
        "processingDate": "2024-05-01T17:14:10Z",
        "cycleNumber": 128,
        "passNumber": 43,
        "relativeOrbitNumber": 22,
        "processingCenter": "EUM",
        "productClass": "OPE",
        "timeliness": "NR",
        "baselineCollection": "F09",
    },
    "S6A_P4_1B_LR______20211025T003221_20211025T012834_20211025T090135_3373_035_109_054_EUM__OPE_ST_F03.SEN6.zip": {
        "productType": "P4_1B_LR_____",
        "processingLevel": "1B",
    },
    "S6A_P4_1A_HR______20210527T182205_20210527T191822_20220509T142357_3377_020_070_035_EUM__REP_NT_F06.SEN6": {
        "productClass": "REP"
    },
    "S6A_P4_2__LR_STD__NR_128_043_20240501T152036_20240501T165910_F09.nc": {
        "productType": "P4_2__LR_STD_",
        "passNumber": 43,
        "timeliness": "NR",
    },
    "S6A_MW_2__AMR_____NR_001_227_20201130T133814_20201130T153340_F00": {"instrumentShortName": "AMR-C"},
    "S6A_MW_0__AMR_____20201203T050820_20201203T050936_20201203T104056_0076_002_041_021_EUM__OPE_ND____.SEN6.tar": {
        "processingLevel": "0",
        "timeliness": "ND",
    },
    "S6A_DO_0__DOP_____20201203T103532_20201203T123115_20201203T123145_6943_002_047_024_EUM__OPE_NR____.SEN6.tar": {
        "instrumentShortName": "DORIS"
    },
    "S6A_GN_1B_RNXH_AX_20230614T125942_20230614T135941_20230614T153905__________________CPOD_OPE_NR____.SEN6.tar": {
        "instrumentShortName": "GNSS",
        "processingCenter": "CPOD",
    },
    "S6A_AX____POE__AX_20230524T215923_20230526T015923_20230614T150335__________________SALP_OPE_NT_002.SEN6.tar": {
        "productType": "AX____POE__AX",
        "baselineCollection": "002",
    },
}

LANDSAT = {
    "LC09_L2SP_016030_20260526_20260527_02_T1": {
        "platformShortName": "LANDSAT-9",
        "instrumentShortName": "OLI_TIRS",
        "productType": "L2SP",
        "processingLevel": "L2",
        "pathNumber": 16,
        "rowNumber": 30,
        "acquisitionDate": "2026-05-26",
        "processingDate": "2026-05-27",
        "baselineCollection": "02",
        "collectionCategory": "T1",
    },
    "LC08_L2SR_140041_20130503_20190828_02_T1.tar": {"platformShortName": "LANDSAT-8", "productType": "L2SR"},
    "LC08_L1TP_015033_20220108_20220108_02_RT.tar": {"processingLevel": "L1", "collectionCategory": "RT"},
    "LO08_L1GT_198027_20181115_20201115_02_T2.tar.gz": {"instrumentShortName": "OLI", "productType": "L1GT"},
    "LT08_L1GS_200029_20130507_20200504_02_T2": {"instrumentShortName": "TIRS"},
}

PUBLISHED = SENTINEL_1 | SENTINEL_2 | SENTINEL_3 | SENTINEL_5P | SENTINEL_6 | LANDSAT


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_name_tells_what_it_says(name: str) -> None:
    found = attributes_of_name(name)
    assert found.items() >= PUBLISHED[name].items()
    if len(PUBLISHED[name]) > 8:
        assert found == PUBLISHED[name], "the full example lists everything"
    assert attributes_of_name(f"some/folder/{name}") == found


NOTHING = [
    "",
    "product.zip",
    "S2A",
    "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE.exe",
    "xS2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE",
    "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE\n",
    "s2a_msil1c_20230420t100021_n0509_r122_t33uvp_20230420t120027.safe",
    "S2A_MSIL1C_20231320T100021_N0509_R122_T33UVP_20230420T120027.SAFE",  # month 13
    "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T126027.SAFE",  # minute 60
    "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_2023042٠T120027.SAFE",  # a digit, but not ours
    "S2B_MSIL2A_20220421T042659_R133_T46RCP_20220421T192301",  # another archive's: no baseline
    "S2E_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE",
    "S1A_IW_GRDH_1SDV_20240514T000653_20240514T000628_053860_068BEC_2F3B.SAFE",  # ends before it begins
    "S1A_IW_GRDH_1SDV_20181008T052822",
    "S1A_IW_GRDH_1SDV_20170903T092838_20170903T092903_018209_01E9A9_D2A2_Orb_NR_Cal.dim",
    "S3A_OL_1_EFR____20180916T090539_20180916T090839_20180916T090539_0001_001_001_0001_CEN_M_AA_AAA.SEN3",
    "S5P_OFFL_L2__NO2.nc",
    "S5P_RPRO_L2__CH4____20220701T024730_20220701T042859_24427_03_020400_20230131T104028.SUB.nc4",
    "S5P_OFFL_L2__TOOLONG_20220701T024730_20220701T042859_24427_03_020400_20230131T104028.nc",
    "S6A_P4_2__LR______20240501T152036_20240501T165910_20240501T171410_5914_128_043_EUM__OPE_NR_F09.SEN6",
    "S6C_P4_2__LR______20240501T152036_20240501T165910_20240501T171410_5914_128_043_022_EUM__OPE_NR_F09.SEN6",
    "S6A_P4_2__LR_STD__NR_128_043_20240501T165910_20240501T152036_F09.nc",  # ends before it begins
    "LC09_L2SP_044034_20250628_02_T1",  # a catalogue's name of it
    "LC09_L2SP_016030_20260526_20260527_02_T1_SR_B4.TIF",  # a part of it
    "LC80290302015343LGN00",  # a scene of old
    "LC08_L1GT_029030_20151209_20160131_01_RT",  # of Collection 1
    "LC10_L2SP_016030_20260526_20260527_02_T1",
    "LC09_L2SP_234030_20260526_20260527_02_T1",  # there are 233 paths
    "LC09_L2SP_016030_20260526_20260525_02_T1",  # made before it was seen
    "S2A_MSIL1C_" + "2" * 100_000,
]


def test_a_part_that_is_left_blank_is_no_attribute() -> None:
    name = "S3A_OL_2_LFR____20240504T000203_20240504T000503_20240504T021142_0179_112_059_2160_____O_NR_002.SEN3"
    attributes = attributes_of_name(name)
    assert attributes["timeliness"] == "NR"
    assert "" not in attributes.values()


@pytest.mark.parametrize("name", NOTHING, ids=range(len(NOTHING)))
def test_a_name_that_follows_no_convention_yields_nothing(name: str) -> None:
    assert attributes_of_name(name) == {}


@given(st.text())
def test_no_name_raises(name: str) -> None:
    assert attributes_of_name(name) == {}


@given(st.sampled_from(list(PUBLISHED)), st.data())
def test_a_mangled_name_never_raises(name: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(name)))
    attributes_of_name(
        name[:position] + data.draw(st.text(max_size=3)) + name[position + data.draw(st.integers(0, 3)) :]
    )


MANIFEST = b"""<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:safe="http://www.esa.int/safe/sentinel-1.0"
           xmlns:s1="http://www.esa.int/safe/sentinel-1.0/sentinel-1" version="x">
  <safe:platform>
    <safe:nssdcIdentifier>2014-016A</safe:nssdcIdentifier><safe:familyName>SENTINEL-1</safe:familyName>
    <safe:number>A</safe:number>
    <safe:instrument><safe:familyName abbreviation="SAR">Synthetic Aperture Radar</safe:familyName></safe:instrument>
  </safe:platform>
  <safe:orbitReference>
    <safe:orbitNumber type="start">53860</safe:orbitNumber><safe:orbitNumber type="stop">53861</safe:orbitNumber>
    <safe:relativeOrbitNumber type="start">63</safe:relativeOrbitNumber><safe:cycleNumber>322</safe:cycleNumber>
    <s1:pass>ASCENDING</s1:pass>
  </safe:orbitReference>
  <safe:acquisitionPeriod>
    <safe:startTime>2024-05-14T00:06:28.688000</safe:startTime><safe:stopTime>2024-05-14T00:06:53.687000</safe:stopTime>
  </safe:acquisitionPeriod>
  <s1:transmitterReceiverPolarisation>VV</s1:transmitterReceiverPolarisation>
  <s1:transmitterReceiverPolarisation>VH</s1:transmitterReceiverPolarisation>
  <s1:missionDataTakeID>429036</s1:missionDataTakeID>
</xfdu:XFDU>"""


def test_a_manifest_tells_what_the_name_cannot() -> None:
    assert attributes_of_manifest(MANIFEST) == {
        "platformShortName": "SENTINEL-1",
        "platformSerialIdentifier": "A",
        "orbitNumber": 53860,
        "relativeOrbitNumber": 63,
        "cycleNumber": 322,
        "orbitDirection": "ASCENDING",
        "beginningDateTime": "2024-05-14T00:06:28.688Z",
        "endingDateTime": "2024-05-14T00:06:53.687Z",
        "polarisationChannels": "VV&VH",
        "datatakeID": 429036,
    }


def test_name_and_manifest_together_say_what_the_catalogue_would() -> None:
    name = "S1A_IW_GRDH_1SDV_20240514T000628_20240514T000653_053860_068BEC_2F3B.SAFE.zip"
    manifest = MANIFEST.replace(b"<s1:pass>", b"<s1:productType>GRD</s1:productType><s1:pass>")
    together = attributes_of(name, manifest)
    finer = {"beginningDateTime": "2024-05-14T00:06:28.688Z", "endingDateTime": "2024-05-14T00:06:53.687Z"}
    more = {"orbitDirection": "ASCENDING", "cycleNumber": 322}
    assert together == attributes_of_name(name) | more | finer
    assert attributes_of(name, None) == attributes_of(name, b"no xml") == attributes_of_name(name)


def test_sentinel_2_manifests_name_the_satellite_otherwise() -> None:
    data = b"<a><familyName>SENTINEL</familyName><number>2B</number></a>"
    assert attributes_of_manifest(data) == {"platformShortName": "SENTINEL-2", "platformSerialIdentifier": "B"}


def test_the_direction_of_a_sentinel_2_manifest_is_an_attribute() -> None:
    data = b'<a><orbitNumber type="start" groundTrackDirection="descending">40874</orbitNumber></a>'
    assert attributes_of_manifest(data) == {"orbitNumber": 40874, "orbitDirection": "DESCENDING"}


LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a><number>&c;</number></a>'
HOSTILE = {
    "nothing": b"",
    "no xml": b"hello",
    "cut off": MANIFEST[:900],
    "entities": LAUGHS,
    "outside file": b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a><number>&f;</number></a>',
    "a dtd": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><a/>',
    "multi-byte encoding": b'<?xml version="1.0" encoding="utf-32"?><a/>',
    "bad bytes": b"<a><number>\xff\xfe</number></a>",
    "huge number": b"<a><orbitNumber>" + b"9" * 10_000 + b"</orbitNumber></a>",
    "long text": b"<a><number>" + b"A" * 10_000 + b"</number></a>",
    "no times": b"<a><startTime>yesterday</startTime><stopTime>9999-12-31T23:59:59-14:00x</stopTime></a>",
    "a time out of range": b"<a><startTime>0001-01-01T00:00:00+14:00</startTime></a>",
    "control characters": b"<a><number>A&#10;B</number></a>",
    "very deep": b"<a>" * 100_000 + b"</a>" * 100_000,
    "very long": b"<a>" + b" " * (5 << 20) + b"</a>",
    "null": b"\0" * 1_000,
}


@pytest.mark.parametrize("fault", list(HOSTILE))
def test_a_hostile_manifest_costs_attributes_and_nothing_else(fault: str) -> None:
    assert attributes_of_manifest(HOSTILE[fault]) == {}


@given(st.integers(0, len(MANIFEST)), st.binary(max_size=20))
def test_a_mangled_manifest_never_raises(position: int, noise: bytes) -> None:
    attributes_of_manifest(MANIFEST[:position] + noise + MANIFEST[position + len(noise) :])
