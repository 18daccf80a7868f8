"""From the mm world: CMT checkpoints and mmdet3d info files, read without mmcv and without running what is in them."""

from aqr.cmt.convert import Conversion, convert_cmt, infer_config
from aqr.cmt.infos import InfoCheck, InfoFile, InfoSample, check_infos, read_infos

__all__ = [
    "Conversion",
    "InfoCheck",
    "InfoFile",
    "InfoSample",
    "check_infos",
    "convert_cmt",
    "infer_config",
    "read_infos",
]
