"""One file a runtime; its name is the backend's name. A package's own are found by entry point (engines/select.py).

``RANK``         place among those that ``auto`` tries, lowest first; None: only by name
``REASON``       why ``auto`` took it, in words
``PRECISIONS``   what it computes in, of :data:`engines.spec.PRECISIONS`
``version()``    of the runtime; ImportError where it is missing, EngineUnavailableError where it cannot run
``NETWORKS``     optional: of a model's networks those that it computes; its generator alone if not said
``PROCESSOR``    optional: "gpu" where it computes on one, else "cpu"
``lacks(precision)``    optional: why this machine cannot compute in it; empty where it can
``INSTALL``      optional: what pip installs for it, where that is not the backend's name
``extra_bytes(spec)``    optional: memory beyond that of a float32 engine with one stream
``RECIPE``       optional: raised when a compiled engine would be another one of the same file
``CARD``         only where no model is needed: the card that stands for it
``open_engine(model, spec)``    an Engine

One whose engines are compiled to bytes that can be kept is a :class:`engines.engine_files.Compiling` as well.
"""
