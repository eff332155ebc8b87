"""Parts that users write in Python files of their own, named as `path/to/file.py:part`.

Whoever names a file in a spec, in Python or on the command line runs its code. What is read from stores and
from networks never does: such readers work inside `no_user_code`.
"""

from byzopt.own_files.blame import UserError, blamed, describe_error, place_of, within
from byzopt.own_files.origins import given_as_object, is_private, origin_of, record_origin
from byzopt.own_files.reference import Reference, anchored, is_reference, no_user_code
from byzopt.own_files.signature import called, check_frozen, recipe_from
from byzopt.own_files.source import (
    KEY,
    PartSource,
    load_part,
    objects_in,
    parts_of,
    source_of,
    without_hashes,
    without_paths,
)

__all__ = [
    "KEY",
    "PartSource",
    "Reference",
    "UserError",
    "anchored",
    "blamed",
    "called",
    "check_frozen",
    "describe_error",
    "given_as_object",
    "is_private",
    "is_reference",
    "load_part",
    "no_user_code",
    "objects_in",
    "origin_of",
    "parts_of",
    "place_of",
    "recipe_from",
    "record_origin",
    "source_of",
    "within",
    "without_hashes",
    "without_paths",
]
