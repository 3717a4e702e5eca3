"""What is stated of MNIST on the bundled SiOx device, trained and evaluated as the README says."""

import numpy as np
import pytest

import calib

DEVICE = "siox-high-resistance"


@pytest.mark.reproduction
def test_training_on_the_device_reaches_the_stated_error_and_efficiency(mnist_folder, tmp_path):
    runs = [
        calib.train(DEVICE, output=tmp_path / name, dataset="mnist", data_folder=mnist_folder, epochs=15, **options)
        for name, options in (("aware", {}), ("l1", {"l1": 1e-4}), ("ideal", {"ideal": True}))
    ]
    results = calib.evaluate(runs, [DEVICE], chips=25, data_folder=mnist_folder)
    aware, l1, ideal = results["error"].median("chip").values[:, 0]
    efficiency = results["efficiency_tops_per_watt"].mean("chip").values[:, 0]
    assert aware < 0.09
    assert l1 < 0.076
    assert efficiency[1] > 380
    assert ideal > 3 * l1  # the paper: 41.6 % of standard training; several times worse
    assert np.isfinite(results["energy_per_inference"]).all()
