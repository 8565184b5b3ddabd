"""Layers for many rows at once on a CPU."""

import torch
from torch import Tensor, nn

BLOCK_ROWS = 2048


class BlockedLayers(nn.Sequential):
    """Layers that take many rows in blocks, so that what is between them stays in the cache.

    Only on a CPU, where no gradient is wanted: of tens of thousands of rows, each layer's result
    would go to memory and come back, which takes longer than the arithmetic.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., N, in)` to `(..., N, out)`."""
        whole = torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling()
        if whole or x.shape[-2] <= BLOCK_ROWS:
            result: Tensor = super().forward(x)
            return result
        blocks = x.split(BLOCK_ROWS, dim=-2)
        return torch.cat([super(BlockedLayers, self).forward(block) for block in blocks], dim=-2)
