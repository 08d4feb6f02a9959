"""The catalogue of an output folder, ``catalogue.sqlite``. SQL is only here."""
