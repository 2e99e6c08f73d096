"""What Xen's vPCI does by itself and the registers of the hardware do not show."""
