from .description import PreprocessingInfo, ScriptDescription, read_description
from .foreign import convert_script
from .gampen import GampenConversion, convert_gampen
from .published import Published, read_published
from .sfnet import SFNET_TARGETS, SfnetConversion, convert_sfnet

__all__ = [
    "SFNET_TARGETS",
    "GampenConversion",
    "PreprocessingInfo",
    "Published",
    "ScriptDescription",
    "SfnetConversion",
    "convert_gampen",
    "convert_script",
    "convert_sfnet",
    "read_description",
    "read_published",
]
