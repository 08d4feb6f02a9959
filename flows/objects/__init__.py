"""Object storage (S3 and compatible): scans that are brought from a bucket, results that are put into one.

Everything else of this project works with files. So scans come in parts to a work folder, as many at once as its limit
allows; a part is an ordinary run there (:mod:`flows.run`), and each result goes to its bucket when it is whole. Only
here is it known that there are buckets.
"""
