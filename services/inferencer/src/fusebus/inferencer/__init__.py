"""Runs the ONNX model on images."""
