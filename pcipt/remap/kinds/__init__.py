"""Kinds of functions of which Xen knows less than it needs: behind VMD controllers, virtual ones."""
