"""The operators as Triton kernels. Importing this imports triton: only `operators` does, when a kernel is due."""
