"""How the four packages and the shipped flagfiles are installed."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="ape-gan-tf",
    version="0.1.0",
    description="APE-GAN: a purifier that removes adversarial perturbations",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The ape_gan_tf authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=[
        *find_packages(
            include=[
                f"{name}{below}"
                for name in ("ape_gan_tf", "attacks", "models", "data")
                for below in ("", ".*")
            ]
        ),
        # No Python in it: the top-level flags/ folder, placed where the
        # installed commands look for a shipped flagfile.
        "ape_gan_tf.flags",
    ],
    package_dir={"ape_gan_tf.flags": "flags"},
    package_data={
        "ape_gan_tf": ["pretrained/*.*", "templates/*.html"],
        "ape_gan_tf.flags": ["*.flags"],
    },
    install_requires=[
        "absl-py>=2.1",
        "cleverhans>=4.0",
        "foolbox>=3.3.4",
        "h5py>=3.11",
        "jinja2>=3.1",
        "keras>=3.12",
        "matplotlib>=3.8",
        "numpy>=2.0",
        "pillow>=10.0",
        "scikit-learn>=1.5",
        "tensorflow>=2.21",
        "tqdm>=4.66",
    ],
    extras_require={
        # The checkers are pinned: a new rule must not fail an old commit.
        "test": [
            "adversarial-robustness-toolbox>=1.20",
            "ipykernel>=6.29",
            "mypy==2.4.1",
            "nbclient>=0.10",
            "pytest>=8.2",
            "pytest-xdist>=3.8",
            "pyyaml>=6.0",
            "ruff==0.17.6",
            "setuptools>=77",
            "tensorflow-serving-api>=2.18",
        ],
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "art": ["adversarial-robustness-toolbox>=1.20"],
        "serving": ["tensorflow-serving-api>=2.18"],
        "benchmark": [
            "adversarial-robustness-toolbox>=1.20",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "tensorflow-serving-api>=2.18",
            "tf2onnx>=1.16",
            "torch>=2.4",
        ],
    },
)
