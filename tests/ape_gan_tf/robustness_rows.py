"""Rows as the tests of what reads them make them up."""

from ape_gan_tf.metrics import Row


def make_row(name, threat="white_box", **fields):
    """A row of 1,000 images before a purifier; the rest as given."""
    settings = {
        "dataset": "mnist",
        "split": "test",
        "count": 1000,
        "classifier": {"name": "c", "fingerprint": "c1"},
        "purifier": {"name": "p", "fingerprint": "p1"},
        "params": {},
        "crafted_on": None if threat == "benign" else "d1",
        "seed": 1,
        **fields,
    }
    return Row(input=name, threat_model=threat, **settings)


def in_ball(name, error, threat="white_box", epsilon=0.3, **fields):
    """A row of an attack in a ball, with this error behind the purifier."""
    params = {"epsilon": epsilon, **fields.pop("params", {})}
    return make_row(name, threat, params=params, purified_error=error, **fields)
