"""Serve exported models over HTTP, with a web page: ``pplc serve``."""
