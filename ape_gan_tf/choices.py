"""Names that flags and the library share; no TensorFlow is imported here."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine")
TARGETS = ("A", "B", "C", "D")
GENERATORS = ("ape_gan_c", "ape_gan_i", "ape_gan_m")
