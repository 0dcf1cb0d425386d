"""Every side effect: one module a step, `providers/` with an adapter each, `store/`.

Activities do one thing and report what came of it; what happens next is decided in `workflows/`. `steps.py` lists them.
"""
