import os

# Read when Triton is first imported, which PyTorch may do in any test. Compiling the kernels has a process of its own.
os.environ["TRITON_INTERPRET"] = "1"
