"""Forward-only kernels in float32, bfloat16 and int8."""
