"""What a project that depends on FlashInfer begins with: one call, on the CPU or a GPU.

python examples/consumer/consumer.py
"""

from __future__ import annotations

import torch

import flashinfer


def main() -> None:
    """Normalizes two rows and prints which build did it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.tensor([[3.0, 4.0] * 32, [1.0, 1.0] * 32], dtype=torch.float16, device=device)
    normalized = flashinfer.rmsnorm(rows, torch.ones(64, dtype=torch.float16, device=device))
    print(f"flashinfer {flashinfer.__version__} on {device}: {normalized[:, :2].tolist()}")


if __name__ == "__main__":
    main()
