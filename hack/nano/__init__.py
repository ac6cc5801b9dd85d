"""How the shipped `seedvr2-nano` checkpoint is made: data, degradation, training, export."""
