"""The guards: the conditions under which an action on Xen is allowed."""
