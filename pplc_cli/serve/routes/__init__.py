"""What the server answers: pplc's own routes, PaddleX's, and how request bodies are read."""
