"""The guards: what must hold before Xen is told anything."""
