"""Functions about which Xen knows too little: behind VMD or conventional bridges, and virtual functions."""
