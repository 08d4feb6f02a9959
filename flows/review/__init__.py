"""The review desk: what people decide about results, as a table and on a page that a server on this machine shows."""
