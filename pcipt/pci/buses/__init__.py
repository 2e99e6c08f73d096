"""Judge bus numbers: those of bridges, and buses to which no bridge leads."""
