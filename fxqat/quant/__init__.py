"""The numbers of quantization: specs, affine arithmetic, observers, fake quantizers and the modules that hold them."""
