"""SeedVR2: one-step restoration of video by a diffusion transformer between the halves of a causal video VAE."""
