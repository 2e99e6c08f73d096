"""Reserved memory regions (RMRR, IVMD) as tables and Xen list them, and findings about odd regions."""
