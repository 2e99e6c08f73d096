"""Read what one function's sysfs directory holds."""
