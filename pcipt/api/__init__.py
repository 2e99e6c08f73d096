"""What `import pcipt` offers other programs, beside the values of the decoder: see docs/python.md."""
