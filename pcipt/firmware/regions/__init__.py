"""Reserved memory regions (RMRR, IVMD): what tables and Xen say of them."""
