"""Parts that users write in Python files of their own, named as `path/to/file.py:part`.

Whoever names a file in a spec, in Python or on the command line runs its code. What is read from stores and
from networks never does: such readers work inside `no_user_code`.
"""

from byzopt.own_files.blame import UserError, blamed, place_of, told
from byzopt.own_files.origins import adopt, adopted, given_as_object, is_private
from byzopt.own_files.reference import Reference, anchored, is_reference, no_user_code
from byzopt.own_files.signature import called, check_frozen, recipe_from
from byzopt.own_files.source import (
    KEY,
    Source,
    load,
    objects_in,
    parts_of,
    source_of,
    without_hashes,
    without_paths,
)

__all__ = [
    "KEY",
    "Reference",
    "Source",
    "UserError",
    "adopt",
    "adopted",
    "anchored",
    "blamed",
    "called",
    "check_frozen",
    "given_as_object",
    "is_private",
    "is_reference",
    "load",
    "no_user_code",
    "objects_in",
    "parts_of",
    "place_of",
    "recipe_from",
    "source_of",
    "told",
    "without_hashes",
    "without_paths",
]
