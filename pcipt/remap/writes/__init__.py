"""Shadow registers, and the changes that configuration writes make to them."""
