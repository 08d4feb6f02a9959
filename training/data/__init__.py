"""Photographs in, batches of lightness and colour out.

open_collection    a folder of any known layout, split into pictures for training and for testing
make_batch         the batch of one step;  batches  all from a step on, made ahead
age                lightness degraded as by old film
find_photographs, is_test, read_rgb, is_colour    the parts, for judging photographs one by one
"""

from training.data.batches import Batch, batches, default_workers, make_batch, picture_indices
from training.data.collection import Collection, LeftOut, open_collection
from training.data.decode import is_colour, read_rgb
from training.data.files import Photograph, find_photographs, is_test
from training.data.film import age
from training.data.pictures import Pictures, Sample
from training.data.subset import Subset

__all__ = [
    "Batch",
    "Collection",
    "LeftOut",
    "Photograph",
    "Pictures",
    "Sample",
    "Subset",
    "age",
    "batches",
    "default_workers",
    "find_photographs",
    "is_colour",
    "is_test",
    "make_batch",
    "open_collection",
    "picture_indices",
    "read_rgb",
]
