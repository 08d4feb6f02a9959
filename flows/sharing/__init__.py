"""What leaves the house: a site with IIIF manifests, packages for preservation, and the catalogue for others."""
