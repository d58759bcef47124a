"""What the tests are about: a live network, its data, and what may be lost."""

import numpy as np
import pytest
from net import build


@pytest.fixture
def mnn_model():
    """A live module; it is copied, never changed. It could come out of a training run of this session."""
    return build()


@pytest.fixture
def mnn_calibration():
    """Pictures that the network was trained on."""
    return dict(np.load("calibration.npz"))


@pytest.fixture
def mnn_evaluation():
    """Pictures that it was not trained on, and what they show."""
    return dict(np.load("evaluation.npz"))


@pytest.fixture
def mnn_tolerances():
    """What the assertions allow where a test does not say."""
    return {"max_accuracy_drop": 0.01}
