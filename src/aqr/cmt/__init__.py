"""From the mm world: CMT checkpoints and mmdet3d info files, read without mmcv and without running what is in them."""

from aqr.cmt.convert import Conversion, convert_cmt, infer_config

__all__ = ["Conversion", "convert_cmt", "infer_config"]
