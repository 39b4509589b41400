import os

# Read when Triton is first imported, which PyTorch may do in any test. The kernels are compiled in processes of their own.
os.environ["TRITON_INTERPRET"] = "1"
