"""What Xen's vPCI does by itself, where hardware does not show it."""
