"""The operations of training programs, one dataclass per code; see :class:`pplc_cli.kernels.simd.steps.Step`."""
