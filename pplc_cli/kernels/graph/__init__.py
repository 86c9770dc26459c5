"""Exported networks as plain data, read and written without Paddle.

:mod:`graph` says what a network is here; :mod:`paddle_file` reads Paddle's two files; :mod:`simplify` folds what
inference does not need.
"""
