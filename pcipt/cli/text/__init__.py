"""How numbers, tables, colours and events are printed."""
