"""Ctrl-C that lands where TensorFlow drops it."""

import signal

import numpy as np
import pytest
import tensorflow as tf

from ape_gan_tf import interrupts
from ape_gan_tf.progress import Progress


@pytest.fixture(autouse=True)
def ctrl_c_as_in_the_foreground():
    # A shell has its background jobs, perhaps these tests, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def drop_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_was_dropped_stops_the_work_later():
    with interrupts.remembered():
        interrupts.raise_pending()
        drop_an_interrupt()
        assert interrupts.is_pending()
        with Progress("training", 10, "steps") as bar:
            with pytest.raises(KeyboardInterrupt):
                bar.update(1)


def test_an_interrupt_in_a_callback_is_remembered():
    def callback(value):
        signal.raise_signal(signal.SIGINT)
        return value

    with interrupts.remembered():
        # Another error by the time that it is out, or none at all.
        try:
            tf.numpy_function(callback, [np.zeros(1)], tf.float64)
        except (tf.errors.OpError, KeyboardInterrupt):
            pass
        assert interrupts.is_pending()


def test_nothing_is_left_behind():
    with interrupts.remembered():
        drop_an_interrupt()
    assert not interrupts.is_pending()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.remembered():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert not interrupts.is_pending()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
