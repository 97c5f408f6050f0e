"""Networks, without any knowledge of a method; tensors in, tensors out."""
