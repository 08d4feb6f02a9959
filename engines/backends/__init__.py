"""One file per runtime. Each has

``RANK``      place among the installed ones that ``auto`` tries, lowest first
``REASON``    why it has that place, for the line that ``auto`` prints
``version()`` the runtime's version; raises ImportError where it is not installed
``CARD``      only where the backend needs no model: the card that stands for it
``open_engine(model, spec)`` an :class:`engines.spec.Engine`
"""
