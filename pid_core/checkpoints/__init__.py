"""Checkpoint files: read, recognised, converted, packed into 8 bits. Above what a file becomes, below what uses it."""
