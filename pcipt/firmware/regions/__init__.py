"""Reserved memory regions (RMRR, IVMD): what firmware and Xen tell of them, and what is odd about them."""
