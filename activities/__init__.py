"""Every side effect: the steps that workflows run, `providers/` with a folder for each kind, and `store/`.

Activities do one thing and report what came of it; what happens next is decided in `workflows/`. `registry.py` lists
them.
"""
