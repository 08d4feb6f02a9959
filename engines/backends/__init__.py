"""One module per runtime, named as the backend. Other packages' are found by entry point (engines/registry.py).

``RANK``         order in which ``auto`` tries it, lowest first; None: only by name
``REASON``       why ``auto`` chose it, in words
``PRECISIONS``   its precisions, from :data:`engines.spec.PRECISIONS`
``version()``    version of the runtime; ImportError if it is missing, EngineUnavailableError if it cannot run
``NETWORKS``     optional: the networks of a model that it supports; by default the generator alone
``PROCESSOR``    optional: "gpu" if it computes on one, else "cpu"
``lacks(precision)``    optional: why this machine cannot compute in it; empty if it can
``INSTALL``      optional: the package for pip, if it does not have the backend's name
``extra_bytes(spec)``    optional: memory beyond that of a float32 engine with one stream
``RECIPE``       optional: incremented when the same file would give another compiled engine
``CARD``         only if no model is needed: the card to use instead
``open_engine(model, spec)``    an Engine

A backend whose engines are compiled to bytes that can be cached is also a :class:`engines.engine_files.Compiling`.
"""
