"""Draw the machine: the values of a picture, where each of them is put, and the SVG text."""
