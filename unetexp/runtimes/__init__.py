"""Exported models in the runtimes that they were written for; none of them needs torch's network.

A file describes itself (`Description`), and is refused where its runtime gives other numbers than
at export time. Every runtime is optional: `pip install 'unetexp[onnx]'`, `[openvino]`, ...
"""
