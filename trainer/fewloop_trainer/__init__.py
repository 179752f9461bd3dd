"""Fewloop's trainer: the FSL++ recipe (PET, EFL, self-training, distillation) and its export to ONNX."""
