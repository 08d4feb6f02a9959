"""Reproduce the five reports, each with one command: ``colorize-archive reproduce SYSTEM --data DIR --out DIR``.

The command trains the models that the system's report compares, and makes a page with the same tables, curves and
pictures. In minutes this is a small copy: fewer and smaller pictures, narrower networks, and the report's number of
epochs as far as time allows. ``full`` is the report's own length and size, which takes days on a GPU.

study.py     trains variants of a recipe within a given time, and measures them
page.py      the page itself
figures.py   strips and sheets;  stitch.py  one picture from overlapping patches
dilated_gan.py mobilenet_fusion.py patchgan_study.py unet_cgan.py pix2pix_frames.py    one system each
"""

from training.reproduce.reproduce import SYSTEMS, reproduce
from training.reproduce.study import Request

__all__ = ["SYSTEMS", "Request", "reproduce"]
