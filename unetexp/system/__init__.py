"""The process and its machine: signals, output, short folders, cores, CUDA errors, the shell."""
