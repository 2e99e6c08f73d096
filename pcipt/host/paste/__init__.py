"""Read what people paste: the text of lspci in its forms, boot logs, ACPI tables as text; mangled by mail."""
