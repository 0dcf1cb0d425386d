"""The HTTP door: Files and Batches in OpenAI's shape. It keeps no state of its own.

`durabatch.gateway.app` makes the application. What it needs comes with `pip install "durabatch[gateway]"`.
"""
