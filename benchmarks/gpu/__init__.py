"""What the engine costs on a GPU, and how near that is to what the GPU can do.

    python -m benchmarks.gpu stages            each stage, time and memory, plain and fast side by side
    python -m benchmarks.gpu dit               the transformer alone: accuracy, speed, exact knobs, profile
    python -m benchmarks.gpu numerics          final frames of the fast path in BF16 beside the plain one in FP32
    python -m benchmarks.gpu layers            the error behind each layer in BF16, plain and fast
    python -m benchmarks.gpu clip              a generated 720p clip through the whole runner, file to file
    python -m benchmarks.gpu start             from the start of the process to the first window
    python -m benchmarks.gpu vae               the VAE alone: time, memory and error of each knob
    python -m benchmarks.gpu kernels           what each kernel brings: the networks with its plain fallback
    python -m benchmarks.gpu memory            the memory plan beside measured peaks, on cards of several sizes
    python -m benchmarks.gpu copies            noise, upload, download: what stands around the networks
    python -m benchmarks.gpu roofline IN OUT   a picture (SVG) of what `stages --json` wrote

Each prints a table and takes `--json FILE`. `--device cpu --tiny` goes the same way with small networks and pictures.
All but `clip`, `start` and nano's part of `numerics` need this repository, torch, numpy, safetensors and pydantic only:
`PYTHONPATH=crds:runner:.`.
"""

RELEASED = ("seedvr2-3b", "seedvr2-7b")
"""Here, where it can be read without torch."""
