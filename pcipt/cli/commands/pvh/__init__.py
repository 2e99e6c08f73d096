"""`pcipt pvh`: one module a part."""
