"""``make gpu-check``: what ten minutes on an NVIDIA GPU show, in independent parts."""
