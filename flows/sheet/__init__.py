"""The contact sheet of an output folder and its thumbnails."""
