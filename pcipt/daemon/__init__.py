"""The service: it connects host, Xen, event sources and engine, and answers on the control socket."""
