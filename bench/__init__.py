"""The benches: `python -m bench` measures pcipt next to its peers and judges it (`make bench`)."""
