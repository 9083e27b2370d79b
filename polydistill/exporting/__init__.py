"""Networks as ONNX files: written, made small, checked."""
