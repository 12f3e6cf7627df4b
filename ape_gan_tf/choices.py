"""Names that flags and the library share; no TensorFlow is imported here."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine", "one_cycle")
ADVERSARY_METHODS = ("pgd", "free")
ADVERSARIAL_STARTS = ("clean", "random")
CONSISTENCIES = ("labels", "kl", "guide")
NORMS = ("linf", "l2")
WEIGHTS_DTYPES = ("float16", "float32")
TARGETS = ("A", "B", "C", "D", "densenet40", "resnet18")
GENERATORS = ("ape_gan_c", "ape_gan_i", "ape_gan_m", "purifier_resnet")
APPLICATIONS = ("inception_v3", "mobilenet_v2", "resnet50")
TABLES = ("targets", "1", "2", "3", "4", "7", "8", "9")
GRADIENTS = ("auto", "plain", "bpda", "eot", "guess")
# Of models.BASELINES, those that every purifier is judged against.
DEFAULT_BASELINES = (
    "identity",
    "gaussian_blur",
    "median_filter",
    "bit_depth",
    "jpeg",
)
